"""Folders in which diffusers keeps a VAE: found, read without executing anything, and checked."""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from pvvae_plugin.files import file_sha256

WEIGHTS = 'diffusion_pytorch_model'
SUPPORTED = ('AutoencoderKLWan', 'AutoencoderKLCogVideoX', 'AutoencoderKLHunyuanVideo')


def find_folder(pretrained: str, subfolder: str | None, download: bool) -> Path:
    """The folder that holds a VAE: a local one, or that of the Hugging Face hub's cache.

    Args:
        pretrained: Folder, or a name on the hub.
        subfolder: Folder in it.
        download: Whether the hub may be asked for what its cache lacks.

    Raises:
        FileNotFoundError: If there is none.
    """
    inside = subfolder or ''
    if os.path.isdir(pretrained):
        folder = Path(pretrained, inside)
    elif re.fullmatch(r'[\w.-]+/[\w.-]+', pretrained) is None:
        raise FileNotFoundError(
            f'no folder {pretrained!r}, which is no name on the Hugging Face hub (owner/name) either'
        )
    else:
        folder = _hub_folder(pretrained, inside, download)
    if not (folder / 'config.json').is_file():
        vae = sorted(path.parent.name for path in folder.glob('*/config.json'))
        hint = f'; it is in one of its folders? Set subfolder to one of {vae}' if vae else ''
        raise FileNotFoundError(f'{folder} holds no config.json of a VAE{hint}')
    return folder


def _hub_folder(name: str, inside: str, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [f'{inside}/*' if inside else '*']
    include = f" --include '{inside}/*'" if inside else ''
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not download), inside)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        how = 'the hub did not give it' if download else "the hub's cache lacks it; nothing is downloaded unasked"
        raise FileNotFoundError(
            f'no folder {name!r}, and {how}. A name on the hub: hf download {name}{include}, or download=True. A '
            f'folder: hf download NAME{include} --local-dir {name}'
        ) from error


def read_config(folder: Path) -> tuple[Any, dict]:
    """Class and config of a VAE that diffusers saved.

    Raises:
        ImportError: If diffusers is not installed.
        ValueError: If it is none that we know, or the file is damaged.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError('DiffusersVAE needs diffusers: pip install -e ".[diffusers]"') from error
    try:
        config = json.loads((folder / 'config.json').read_text())
        name = config['_class_name']
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{folder}/config.json is no config that diffusers wrote') from error
    if name not in SUPPORTED:
        raise ValueError(f'{folder} holds {name!r}; this works with {", ".join(SUPPORTED)}')
    return getattr(diffusers, name), config


def read_facts(network: Any, config: Mapping, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network without weights, on the meta device, and what its config says of latents.

    Raises:
        ValueError: If the config cannot be of such a network.
    """
    try:
        with torch.device('meta'):
            twin = network.from_config(config).eval()
        return twin, latent_facts(twin.config)
    except (TypeError, KeyError, ValueError, ZeroDivisionError, RuntimeError, IndexError, ImportError) as error:
        raise ValueError(f'{folder}/config.json does not describe a {network.__name__}: {error!r}') from error


def latent_facts(config: Mapping) -> dict[str, Any]:
    """Channels and ratios, and where a config of diffusers has them mean and deviation ``(C,)`` of raw latents."""
    channels = config.get('z_dim') or config['latent_channels']
    space = config.get('scale_factor_spatial') or config.get('spatial_compression_ratio')
    facts = {
        'channels': channels,
        'temporal_ratio': int(config.get('scale_factor_temporal') or config['temporal_compression_ratio']),
        'spatial_ratio': int(space or 2 ** (len(config['block_out_channels']) - 1)),
    }
    mean, std = config.get('latents_mean'), config.get('latents_std')
    if mean is None and std is None:
        mean, std = [[value] * channels for value in (config.get('shift_factor') or 0.0, 1 / config['scaling_factor'])]
    if min(std) <= 0:
        raise ValueError(f'latents_std must be positive, got {min(std)}')
    if len(mean) == len(std) == channels:  # else they are Wan's defaults, which stand in the config of any other size
        facts |= {'mean': torch.tensor(mean, device='cpu'), 'std': torch.tensor(std, device='cpu')}
    return facts


def load_weights(network: Any, folder: Path) -> nn.Module:
    """The network with the weights in a folder, in float32, all of them and no others.

    Raises:
        FileNotFoundError: If there are none in safetensors.
        ValueError: If they are damaged or do not fit the config.
    """
    weight_files(folder)
    try:
        vae, report = network.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise ValueError(f'{folder}: its weights do not fit its config, or are damaged: {error}') from error
    wrong = {what: report[f'{what}_keys'] for what in ('missing', 'unexpected', 'mismatched') if report[f'{what}_keys']}
    if wrong:
        raise ValueError(
            f'{folder}: its weights do not fit its config: '
            + '; '.join(f'{len(keys)} {what} ({", ".join(map(str, sorted(keys)[:3]))})' for what, keys in wrong.items())
        )
    return vae


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that diffusers loads from a folder: one file, or the shards that an index names.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If there are both, or the index names other files.
    """
    single, index = folder / f'{WEIGHTS}.safetensors', folder / f'{WEIGHTS}.safetensors.index.json'
    if single.is_file() and index.is_file():
        raise ValueError(f'{folder} holds both {single.name} and {index.name}: remove the one that is not meant')
    if single.is_file():
        return [single]
    if not index.is_file():
        raise FileNotFoundError(
            f'{folder} holds no {single.name}; other formats are not read, since they can execute code'
        )
    try:
        names = sorted(set(json.loads(index.read_text())['weight_map'].values()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{index} is damaged') from error
    for name in names:
        if not re.fullmatch(r'[\w-]+(\.[\w-]+)*\.safetensors', name):
            raise ValueError(f'{index} names {name!r}: shards are .safetensors in the same folder')
        if not (folder / name).is_file():
            raise FileNotFoundError(f'{folder} holds no {name}, which its index names: copy the whole folder')
    return [folder / name for name in names]


def weights_sha256(folder: Path) -> str:
    """One digest of the weights that are loaded from a folder, of the bytes of their files in the order of names."""
    return file_sha256(*weight_files(folder))

"""Loading and checking of diffusers VAE folders, without executing code from them."""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from pvvae_plugin.files import file_sha256

WEIGHTS = 'diffusion_pytorch_model'
SUPPORTED = ('AutoencoderKLWan', 'AutoencoderKLCogVideoX', 'AutoencoderKLHunyuanVideo')


def find_folder(pretrained: str, subfolder: str | None, download: bool) -> Path:
    """Find the folder of a VAE, locally or in the cache of the Hugging Face Hub.

    Args:
        pretrained: Folder, or repository name on the Hub.
        subfolder: Subfolder that holds the VAE.
        download: Download files that the Hub cache lacks.

    Raises:
        FileNotFoundError: If the folder does not exist or has no ``config.json``.
    """
    inside = subfolder or ''
    if os.path.isdir(pretrained):
        folder = Path(pretrained, inside)
    elif re.fullmatch(r'[\w.-]+/[\w.-]+', pretrained) is None:
        raise FileNotFoundError(
            f'no folder {pretrained!r}, and it is not a valid name on the Hugging Face Hub (owner/name)'
        )
    else:
        folder = _hub_folder(pretrained, inside, download)
    if not (folder / 'config.json').is_file():
        vae = sorted(path.parent.name for path in folder.glob('*/config.json'))
        hint = f'; if it is in a subfolder, set subfolder to one of {vae}' if vae else ''
        raise FileNotFoundError(f'{folder} holds no config.json of a VAE{hint}')
    return folder


def _hub_folder(name: str, inside: str, download: bool) -> Path:
    wanted = [f'{inside}/*' if inside else '*']
    include = f" --include '{inside}/*'" if inside else ''
    try:
        from huggingface_hub import snapshot_download  # installed with diffusers

        return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=not download), inside)
    except (ImportError, OSError) as error:  # the Hub's own errors are OSErrors
        how = 'downloading it from the Hub failed' if download else 'it is not in the Hub cache (download=False)'
        raise FileNotFoundError(
            f'no folder {name!r}, and {how}. For a name on the Hub, run hf download {name}{include}, or set '
            f'download=True. For a folder, run hf download NAME{include} --local-dir {name}'
        ) from error


def import_diffusers() -> ModuleType:
    try:
        import diffusers
    except ImportError as error:
        raise ImportError('DiffusersVAE needs diffusers: pip install -e ".[diffusers]"') from error
    return diffusers


def read_config(folder: Path) -> tuple[Any, dict]:
    """Return the class and the config of a saved diffusers VAE.

    Raises:
        ImportError: If diffusers is not installed.
        ValueError: If the class is not supported, or the file is damaged.
    """
    diffusers = import_diffusers()
    try:
        config = json.loads((folder / 'config.json').read_text())
        name = config['_class_name']
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{folder}/config.json was not written by diffusers, or is damaged') from error
    if name not in SUPPORTED:
        raise ValueError(f'{folder} holds {name!r}; supported classes: {", ".join(SUPPORTED)}')
    return getattr(diffusers, name), config


def read_facts(network: Any, config: Mapping, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network on the meta device, and the :func:`latent_facts` of its config.

    Raises:
        ValueError: If the config is invalid for this network.
    """
    try:
        with torch.device('meta'):
            twin = network.from_config(config).eval()
        return twin, latent_facts(twin.config)
    except (TypeError, KeyError, ValueError, ZeroDivisionError, RuntimeError, IndexError, ImportError) as error:
        raise ValueError(f'{folder}/config.json does not describe a {network.__name__}: {error!r}') from error


def latent_facts(config: Mapping) -> dict[str, Any]:
    """Return channels and ratios, plus mean and standard deviation ``(C,)`` of raw latents if the config has them."""
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
    if len(mean) == len(std) == channels:  # configs with another number of channels still contain Wan's defaults
        facts |= {'mean': torch.tensor(mean, device='cpu'), 'std': torch.tensor(std, device='cpu')}
    return facts


def load_weights(network: Any, folder: Path) -> nn.Module:
    """Load the network with the weights of a folder in float32. Missing and unexpected weights are errors.

    Raises:
        FileNotFoundError: If the folder has no safetensors files.
        ValueError: If the weights are damaged or do not match the config.
    """
    weight_files(folder)
    try:
        vae, report = network.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise ValueError(f'{folder}: the weights do not match the config, or are damaged: {error}') from error
    wrong = {what: report[f'{what}_keys'] for what in ('missing', 'unexpected', 'mismatched') if report[f'{what}_keys']}
    if wrong:
        raise ValueError(
            f'{folder}: the weights do not match the config: '
            + '; '.join(f'{len(keys)} {what} ({", ".join(map(str, sorted(keys)[:3]))})' for what, keys in wrong.items())
        )
    return vae


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files that diffusers loads from a folder: one file, or the shards in its index.

    Raises:
        FileNotFoundError: If the weights or a shard are missing.
        ValueError: If both forms exist, or the index lists other kinds of files.
    """
    single, index = folder / f'{WEIGHTS}.safetensors', folder / f'{WEIGHTS}.safetensors.index.json'
    if single.is_file() and index.is_file():
        raise ValueError(f'{folder} holds both {single.name} and {index.name}: remove one of the two')
    if single.is_file():
        return [single]
    if not index.is_file():
        raise FileNotFoundError(
            f'{folder} holds no {single.name}; other formats are not supported, because they can execute code'
        )
    try:
        names = sorted(set(json.loads(index.read_text())['weight_map'].values()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{index} is damaged') from error
    for name in names:
        if not re.fullmatch(r'[\w-]+(\.[\w-]+)*\.safetensors', name):
            raise ValueError(f'{index} lists {name!r}: shards must be .safetensors files in the same folder')
        if not (folder / name).is_file():
            raise FileNotFoundError(f'{folder} holds no {name}, which is listed in its index: copy the whole folder')
    return [folder / name for name in names]


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 of the weight files of a folder, concatenated in order of their names."""
    return file_sha256(*weight_files(folder))

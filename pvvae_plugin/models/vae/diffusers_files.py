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
from torch import Tensor, nn

from pvvae_plugin.files import file_sha256

from .pretrained import exported_config

WEIGHTS = 'diffusion_pytorch_model'
PART = 'vae'  # subfolder of an exported VAE that diffusers can load
STATISTICS = ('latents_mean', 'latents_std', 'scaling_factor', 'shift_factor')
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
            twin = without_temporal_tiling(network.from_config(config)).eval()
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
    mean, std, scale = (config.get(name) for name in ('latents_mean', 'latents_std', 'scaling_factor'))
    if mean is None and std is None:
        if scale is None:  # removed at export, see network_config()
            return facts
        mean, std = [[value] * channels for value in (config.get('shift_factor') or 0.0, 1 / scale)]
    if min(std) <= 0:
        raise ValueError(f'latents_std must be positive, got {min(std)}')
    if len(mean) == len(std) == channels:  # configs with another number of channels still contain Wan's defaults
        facts |= {'mean': torch.tensor(mean, device='cpu'), 'std': torch.tensor(std, device='cpu')}
    return facts


def network_config(vae: nn.Module, mean: Tensor | None, std: Tensor | None) -> dict[str, Any]:
    """Return the config of a network as plain values, without local paths and with the given latent statistics.

    Args:
        vae: The network.
        mean: Mean ``(C,)`` of raw latents. None if unknown: the config then has no statistics, and pipelines of
            diffusers fail instead of using outdated ones.
        std: Standard deviation ``(C,)``; None if unknown.
    """
    config = json.loads(vae.to_json_string())
    config.pop('_name_or_path', None)
    facts = latent_facts(config)
    known = mean is not None and 'mean' in facts
    if known and torch.equal(facts['mean'].to(mean), mean) and torch.equal(facts['std'].to(std), std):
        return config
    config |= {name: None for name in STATISTICS if name in config}
    if mean is not None and 'latents_mean' in config:
        config |= {'latents_mean': mean.tolist(), 'latents_std': std.tolist()}
    return config


def find_export(folder: Path, kind: str) -> tuple[Path, Path | None]:
    """Return the folder of the network, and the exported VAE that it is part of; None if there is none.

    Args:
        folder: A folder of diffusers, or one written by ``save_pretrained`` of a ``kind``, or :data:`PART` in it.
        kind: Name of the class.

    Raises:
        FileNotFoundError: If the network of an exported VAE is missing.
        ValueError: If the folder is, or is in, an exported VAE of another kind.
    """
    if (config := exported_config(folder)) is not None:
        if config['type'] != kind:
            raise ValueError(
                f'{folder} holds a {config["type"]} written by pvvae export, not a network of diffusers: use '
                f"type='PretrainedVAE', pretrained={str(folder)!r}"
            )
        if not (folder / PART / 'config.json').is_file():
            raise FileNotFoundError(f'{folder} holds no {PART}/config.json: copy the whole folder')
        return folder / PART, folder
    if (config := exported_config(folder.parent)) is None:
        return folder, None
    if config['type'] != kind or folder.name != PART:
        raise ValueError(
            f'{folder} is not part of the exported VAE in {folder.parent}: move it out of that folder, which holds a '
            f'{config["type"]}'
        )
    return folder, folder.parent


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
    return without_temporal_tiling(vae)


def without_temporal_tiling(vae: nn.Module) -> nn.Module:
    """Turn off temporal tiling, which diffusers turns on for HunyuanVideo's clips of 17 frames or more.

    A later tile would consist of padding only, so its frames would not depend on the observed ones.
    """
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
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
        if variants := sorted(path.name for path in folder.glob(f'{WEIGHTS}.*.safetensors')):
            raise FileNotFoundError(
                f'{folder} holds only a variant of the weights: {", ".join(variants[:3])}. Download the files without '
                f'a variant, or rename a single file to {single.name}; its values are loaded in float32'
            )
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

"""The folder that a VAE is kept in outside a training run: weights in safetensors, a config in JSON, no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pvvae_plugin import __version__
from pvvae_plugin.files import file_sha256, write_atomically

from ..pretrained import IRRELEVANT

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
KEYS = {'type': str, 'arguments': dict, 'knows_statistics': bool}


def clear_folder(folder: Path) -> None:
    """Take away what makes a folder one of a VAE, before its parts are replaced one after another."""
    (folder / CONFIG).unlink(missing_ok=True)


def write_folder(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write weights and then the config, each whole or not at all.

    Args:
        folder: Made if it is not there.
        config: ``type``, ``arguments`` and ``knows_statistics`` of the VAE.
        state: Its weights.
    """
    write_atomically(folder / WEIGHTS, save({name: tensor.contiguous() for name, tensor in state.items()}))
    write_atomically(folder / CONFIG, (json.dumps({**config, 'pvvae_plugin': __version__}, indent=2) + '\n').encode())


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a folder.

    Raises:
        FileNotFoundError: If it holds none.
        ValueError: If it is not one that :func:`write_folder` wrote.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f'{folder} holds no {CONFIG}, it is not the folder of a VAE: tools/export_vae.py makes one of a checkpoint'
        )
    try:
        config = json.loads(path.read_text())
        wrong = [key for key, kind in KEYS.items() if not isinstance(config[key], kind)]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f'{path} is not the config of a VAE that tools/export_vae.py or save_pretrained wrote'
        ) from error
    if wrong:
        raise ValueError(f'{path}: {wrong[0]} must be of type {KEYS[wrong[0]].__name__}, got {config[wrong[0]]!r}')
    if refused := [key for key in config['arguments'] if key in IRRELEVANT]:
        raise ValueError(f'{path}: {refused[0]} is no argument that a folder may give')
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If the file is damaged.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f'{folder} holds no {WEIGHTS}: copy the whole folder')
    try:
        # On the CPU whatever the default device is.
        with torch.device('cpu'):
            weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f'{path} is damaged: {error}') from error
    if wrong := [name for name, tensor in weights.items() if not tensor.is_floating_point()]:
        raise ValueError(f'{path}: {wrong[0]} holds {weights[wrong[0]].dtype}, weights are floating-point numbers')
    return weights


def weights_source(folder: Path) -> dict[str, str]:
    """``path`` and ``sha256`` of the weights of a folder."""
    return {'path': str(folder), 'sha256': file_sha256(folder / WEIGHTS)}

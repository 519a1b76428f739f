"""Weights of an earlier run: finding its checkpoint, and refusing one that does not fit."""

from __future__ import annotations

import hashlib
import os.path as osp
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.runner.checkpoint import find_latest_checkpoint
from torch import Tensor, nn


def resolve_checkpoint(path: str) -> str:
    """A checkpoint file from a file's path or the work directory of a run.

    Args:
        path: A file, a URL (left alone), or a directory, which stands for the last checkpoint written in it.

    Raises:
        FileNotFoundError: If there is none, saying what to do.
    """
    if '://' in path or osp.isfile(path):
        return path
    found = find_latest_checkpoint(path) if osp.isdir(path) else None
    if found and not osp.isfile(found):
        found = osp.join(path, osp.basename(found))  # the directory has moved since the run noted its path
    if found is None or not osp.isfile(found):
        raise FileNotFoundError(
            f'no checkpoint at {path!r}. It must be a .pth file, or the work directory of a finished run; '
            'train the earlier stage first, or name another with --cfg-options load_from=PATH'
        )
    return found


def check_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare the weights of a file with those of a network.

    Raises:
        ValueError: If one is missing or has another shape, naming the first few.
    """
    missing = [name for name in expected if name not in found]
    differing = [
        f'{name}: {tuple(found[name].shape)} in the file, {tuple(tensor.shape)} in the model'
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if missing or differing:
        raise ValueError(
            'the checkpoint does not fit the model of this config: '
            f'{len(missing)} weights missing ({", ".join(missing[:3])}), {len(differing)} of another shape '
            f'({"; ".join(differing[:3])}). Was it written by a config with another backbone?'
        )


def load_backbone(backbone: nn.Module, path: str) -> str:
    """Load a VAE from the checkpoint of a run that trained it.

    Args:
        backbone: The VAE.
        path: See :func:`resolve_checkpoint`.

    Returns:
        SHA-256 of the file.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If it holds another network.
    """
    path = resolve_checkpoint(path)
    checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    prefix = 'backbone.'
    state = {k.removeprefix(prefix): v for k, v in checkpoint['state_dict'].items() if k.startswith(prefix)}
    check_weights(backbone.state_dict(), state)
    backbone.load_state_dict(state)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()

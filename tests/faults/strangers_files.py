"""Files that run code where they are loaded carelessly: whatever loads one makes the file that ``marker`` names."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Harmful:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.makedirs, (str(self.marker), 0o777, True)


def checkpoint(marker: Path) -> dict[str, Any]:
    """What looks like a checkpoint, with one thing too many."""
    return {'state_dict': {}, 'meta': {'iter': 1, 'epoch': 0}, 'message_hub': {}, 'optimizer': Harmful(marker)}


def _pickle(marker: Path) -> bytes:
    return pickle.dumps(checkpoint(marker))


def _zip(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(checkpoint(marker), buffer)
    return buffer.getvalue()


def _legacy(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(checkpoint(marker), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _torchscript(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def _npy(marker: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Harmful(marker)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _npz(marker: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.array([Harmful(marker)], dtype=object) for name in ('mean', 'fc8/W', 'conv1a/W')})
    return buffer.getvalue()


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    'pickle': _pickle,
    'zip': _zip,
    'legacy': _legacy,
    'torchscript': _torchscript,
    'npy': _npy,
    'npz': _npz,
}


def load_carelessly(kind: str, content: bytes) -> None:
    """What our code must not do."""
    if kind in ('npy', 'npz'):
        loaded = np.load(io.BytesIO(content), allow_pickle=True)
        if kind == 'npz':
            list(loaded.values())
    elif kind == 'pickle':
        pickle.loads(content)
    else:
        torch.load(io.BytesIO(content), weights_only=False)

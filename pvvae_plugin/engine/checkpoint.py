"""Checkpoints: loading them safely, and finding the one of an earlier stage."""

from __future__ import annotations

import os.path as osp
import pickle
from collections.abc import Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import find_latest_checkpoint


def allow_checkpoint_globals() -> None:
    """Let ``torch.load(weights_only=True)`` read what MMEngine stores beside weights, and nothing else.

    MMEngine keeps log histories in ``HistoryBuffer`` objects, which pickle NumPy arrays and, through ``getattr``, four
    of their own methods. Exactly those are allowed; anything else in a checkpoint is still refused, so that a file
    from a stranger cannot run code.
    """
    reconstruct = np.array(0.0).__reduce__()[0]
    scalar = np.float64(0.0).__reduce__()[0]
    dtypes = {type(np.dtype(name)) for name in ('float16', 'float32', 'float64', 'int32', 'int64', 'uint8', 'bool')}
    torch.serialization.add_safe_globals(
        [HistoryBuffer, np.ndarray, np.dtype, reconstruct, scalar, *dtypes, (_statistics_method, 'builtins.getattr')]
    )


def _statistics_method(owner: type, name: str) -> Callable:
    """All of ``getattr`` that a log history needs; the real one would open every attribute to a crafted file."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'a checkpoint asks for attribute {name!r} of {owner!r}: refused')
    return getattr(owner, name)


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
    if found and not osp.isabs(found) and not osp.isfile(found):
        found = osp.join(path, osp.basename(found))
    if found is None or not osp.isfile(found):
        raise FileNotFoundError(
            f'no checkpoint at {path!r}. It must be a .pth file, or the work directory of a finished run; '
            'train the earlier stage first, or name another with --cfg-options load_from=PATH'
        )
    return found

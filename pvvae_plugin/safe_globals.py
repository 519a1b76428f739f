"""What ``torch.load(weights_only=True)`` may find in a checkpoint of MMEngine."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


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

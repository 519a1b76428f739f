"""Files of ``torch.save`` and ``numpy.save``, read without running what is in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def load_safely(path: str | Path) -> Any:
    """What a file of ``torch.save`` holds, on the CPU; tensors are mapped where that can be, and nothing is run.

    Raises:
        ValueError: If it is damaged, is no such file, or asks for code to be run, saying which.
    """
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                # torch.load takes flipped bits for weights: it compares no checksums.
                if (entry := archive.testzip()) is not None:
                    raise ValueError(f'the checksum of {entry} is another')
        return torch.load(path, map_location='cpu', weights_only=True, mmap=is_zip)
    except Exception as error:  # there is no telling what bytes from a stranger make of a parser
        raise ValueError(f'{path} cannot be loaded safely: {_why(error)}') from error


def load_array_safely(path: str | Path, mmap_mode: str | None = None) -> np.ndarray:
    """The array of a ``.npy`` file.

    Args:
        path: The file.
        mmap_mode: See ``numpy.load``.

    Raises:
        ValueError: If it is damaged, is no such file, or holds objects, which run code when they are loaded.
    """
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} is no array that can be loaded safely: {why_no_array(error)}') from error
    if not isinstance(array, np.ndarray):  # an .npz by another name
        raise ValueError(f'{path} is not one array but an archive of several: save the frames alone, by numpy.save')
    return array


def why_no_array(error: Exception) -> str:
    """In our words: NumPy's, too, advise to load the file without safety."""
    text = str(error)
    if 'pickle' in text:
        return 'it is damaged, no file of numpy.save, or holds objects, which could run code'
    return f'it is damaged, or no file of numpy.save ({text[:200] or type(error).__name__})'


def _why(error: Exception) -> str:
    """In our words: torch's advise to load the file without safety."""
    text = str(error)
    if asked := re.search(r'GLOBAL ([\w.]+)', text):
        return f'it asks for {asked[1]}, which no checkpoint needs and which could run code'
    if 'TorchScript' in text:
        return 'it is a TorchScript program, and loading one runs it'
    if isinstance(error, pickle.UnpicklingError):
        return 'it is damaged, or no file of torch.save'
    reason = (text.strip().splitlines() or [type(error).__name__])[0][:200]
    return f'it is damaged, or no file of torch.save ({reason})'


def _statistics_method(owner: type, name: str) -> Callable:
    """All of ``getattr`` that a log history needs; the real one would open every attribute to a crafted file."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'a checkpoint asks for attribute {name!r} of {owner!r}: refused')
    return getattr(owner, name)

"""Safe loading of files written by ``torch.save`` and ``numpy.save``, without executing code."""

from __future__ import annotations

import errno
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
    """Allow ``torch.load(weights_only=True)`` to read the log histories in MMEngine checkpoints, and nothing else.

    MMEngine stores log histories as ``HistoryBuffer`` objects, which pickle NumPy arrays and, through ``getattr``, four
    of their methods. Only those are allowed. Anything else in a checkpoint is rejected, so untrusted files cannot run
    code.
    """
    reconstruct = np.array(0.0).__reduce__()[0]
    scalar = np.float64(0.0).__reduce__()[0]
    dtypes = {type(np.dtype(name)) for name in ('float16', 'float32', 'float64', 'int32', 'int64', 'uint8', 'bool')}
    torch.serialization.add_safe_globals(
        [HistoryBuffer, np.ndarray, np.dtype, reconstruct, scalar, *dtypes, (_statistics_method, 'builtins.getattr')]
    )


def load_safely(path: str | Path) -> Any:
    """Load a file written by ``torch.save`` to the CPU without executing code. Tensors are memory-mapped if possible.

    Raises:
        OSError: If the file cannot be read, e.g. because it does not exist or a network file system does not answer.
        ValueError: If the file is damaged, has another format, or would execute code. The message says which.
    """
    try:
        with open(path, 'rb') as file:  # is_zipfile() would answer False for a file that cannot be read
            is_zip = zipfile.is_zipfile(file)
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                # torch.load does not verify checksums and would load corrupted weights.
                if (entry := archive.testzip()) is not None:
                    raise ValueError(f'checksum mismatch in {entry}')
        return torch.load(path, map_location='cpu', weights_only=True, mmap=is_zip)
    except Exception as error:  # parsing untrusted bytes can raise anything
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # damage leads to invalid positions
            raise
        raise ValueError(f'{path} cannot be loaded safely: {_why(error)}') from error


def load_array_safely(path: str | Path, mmap_mode: str | None = None) -> np.ndarray:
    """Load an array from a ``.npy`` file without executing code.

    Args:
        path: The file.
        mmap_mode: See ``numpy.load``.

    Raises:
        ValueError: If the file is damaged, has another format, or contains objects, which could execute code.
    """
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} cannot be loaded safely as an array: {why_no_array(error)}') from error
    if not isinstance(array, np.ndarray):  # a renamed .npz file
        raise ValueError(f'{path} is an archive of several arrays; save a single array with numpy.save')
    return array


def why_no_array(error: Exception) -> str:
    """Explain a loading error without NumPy's own message, which recommends unsafe loading."""
    text = str(error)
    if 'pickle' in text:
        return 'it is damaged, was not written by numpy.save, or contains objects, which could run code'
    return f'it is damaged, or was not written by numpy.save ({text[:200] or type(error).__name__})'


def _why(error: Exception) -> str:
    """Explain a loading error without torch's own message, which recommends unsafe loading."""
    text = str(error)
    if asked := re.search(r'GLOBAL ([\w.]+)', text):
        return f'it asks for {asked[1]}, which no checkpoint needs and which could run code'
    if 'TorchScript' in text:
        return 'it is a TorchScript program, which would run when loaded'
    if isinstance(error, pickle.UnpicklingError):
        return 'it is damaged, or was not written by torch.save'
    reason = (text.strip().splitlines() or [type(error).__name__])[0][:200]
    return f'it is damaged, or was not written by torch.save ({reason})'


def _statistics_method(owner: type, name: str) -> Callable:
    """Replace ``getattr`` for log histories. The real one would expose every attribute to a crafted file."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'a checkpoint requests attribute {name!r} of {owner!r}, which is not allowed')
    return getattr(owner, name)

"""Device selection, processor name, and known bugs of the installed software."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import torch
from mmengine.device import get_device


def usable_device(device: str | torch.device | None) -> str | torch.device:
    """Return the device if it is usable. None selects the GPU if available, else the CPU.

    Raises:
        ValueError: If the device is not available.
    """
    if device is None:
        return get_device()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        gpus = torch.cuda.device_count()
        seen = f'torch sees {gpus} CUDA device(s)' if gpus else 'torch sees no GPU'
        raise ValueError(
            f'device={str(device)!r} cannot be used, {seen} ({str(error).splitlines()[0]}): omit it to select one '
            "automatically, or use 'cpu'"
        ) from error
    return device


def processor() -> str:
    """Return the name of the CPU, or its architecture if the name is unknown."""
    info = Path('/proc/cpuinfo')
    names = re.findall(r'model name\s*: (.*)', info.read_text(encoding='utf-8')) if info.exists() else []
    return names[0] if names else platform.machine()


def known_fault(torch_version: str, cudnn_version: int | None) -> str | None:
    """Describe a known bug of half-precision 3D convolutions on a GPU, and its remedy.

    Args:
        torch_version: ``torch.__version__``.
        cudnn_version: ``torch.backends.cudnn.version()``, e.g. 91002 for 9.10.2; None without cuDNN.

    Returns:
        One or two sentences; None if no bug is known. Sources: pytorch/pytorch issues 163539, 166122 and 166643.
    """
    release = tuple(map(int, re.findall(r'\d+', torch_version)[:3]))
    if cudnn_version is None:
        return None
    cudnn = f'cuDNN {cudnn_version // 10000}.{cudnn_version // 100 % 100}'
    if release == (2, 9, 0):
        return (
            'torch 2.9.0 never uses cuDNN for half-precision 3D convolutions, so they need several times the time and '
            'memory. Use another version of torch, or 2.9.1 with nvidia-cudnn 9.15 or later.'
        )
    if release > (2, 9, 0) and 90800 <= cudnn_version < 91500:
        return (
            f'torch {torch_version} does not use {cudnn} for half-precision 3D convolutions, so they need several '
            'times the time and memory. Install nvidia-cudnn 9.15 or later.'
        )
    if 90800 <= cudnn_version < 91300:
        return (
            f'{cudnn} returns wrong results for some bfloat16 3D convolutions with torch {torch_version}. Install '
            'nvidia-cudnn 9.13 or later, or use float32.'
        )
    return None


def fault_here() -> str | None:
    """Return :func:`known_fault` for this installation; None without a GPU."""
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return None
    return known_fault(torch.__version__, torch.backends.cudnn.version())

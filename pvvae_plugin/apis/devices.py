"""Where inferencers compute."""

from __future__ import annotations

import torch
from mmengine.device import get_device


def usable_device(device: str | torch.device | None) -> str | torch.device:
    """The device itself; where none is given, the GPU if there is one, or else the CPU.

    Raises:
        ValueError: If it is not there.
    """
    if device is None:
        return get_device()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        gpus = torch.cuda.device_count()
        seen = f'torch sees {gpus} of CUDA' if gpus else 'torch sees no GPU'
        raise ValueError(
            f'device={str(device)!r} cannot be used, {seen} ({str(error).splitlines()[0]}): leave it out to take what '
            "there is, or give 'cpu'"
        ) from error
    return device

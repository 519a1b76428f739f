"""How clips get from the workers of a data loader to the main process."""

from __future__ import annotations

import os

import torch
from torch.multiprocessing import get_sharing_strategy
from torch.utils.data import get_worker_info


def share_with_main_process(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in shared memory if this is a worker of a data loader, so that it need not be moved there later.

    Torch would move it when the worker sends it, by mapping new memory and copying into it, with a page fault for every
    4 KiB. Here the kernel copies the whole tensor into a file in memory, which is then mapped and not touched: half the
    time, and no need of ``/dev/shm``, of which containers have little. Where there are no such files (they are Linux's)
    and outside workers the tensor comes back as it is.

    Args:
        tensor: Contiguous, on the CPU, of a type that NumPy has.
    """
    possible = hasattr(os, 'memfd_create') and hasattr(torch.UntypedStorage, '_new_shared_fd_cpu')
    if get_worker_info() is None or not possible or get_sharing_strategy() != 'file_descriptor' or not tensor.numel():
        return tensor
    with open(os.memfd_create('clip'), 'wb', buffering=0) as file:
        left = memoryview(tensor.numpy()).cast('B')
        while left:
            left = left[file.write(left) :]
        storage = torch.UntypedStorage._new_shared_fd_cpu(file.fileno(), tensor.nbytes)  # with a descriptor of its own
    return tensor.new_empty(0).set_(storage, 0, tensor.shape)

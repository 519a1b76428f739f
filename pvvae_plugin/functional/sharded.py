"""Sharded tensors (``DTensor``, as FSDP stores weights). Unsharded tensors pass through unchanged."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(module: nn.Module) -> bool:
    """Return True if the weights of a module are sharded. All processes must then run its forward pass together.

    Example:
        >>> from pvvae_plugin.functional.sharded import is_sharded
        >>> is_sharded(torch.nn.Linear(2, 2))  # single process
        False
    """
    return any(isinstance(p, DTensor) for p in module.parameters())


def local(tensor: Tensor) -> Tensor:
    """Return the shard of a tensor that this process holds.

    Example:
        >>> from pvvae_plugin.functional.sharded import local
        >>> local(torch.ones(3))  # not sharded: returned unchanged
        tensor([1., 1., 1.])
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_numel(tensor: Tensor) -> int:
    """Return the number of elements of the local shard of a tensor.

    Example:
        >>> from pvvae_plugin.functional.sharded import local_numel
        >>> local_numel(torch.ones(3, 2))
        6
    """
    return local(tensor).numel()


def whole(tensor: Tensor) -> Tensor:
    """Gather the full tensor on every process. All processes must call this.

    Example:
        >>> from pvvae_plugin.functional.sharded import whole
        >>> whole(torch.ones(3))
        tensor([1., 1., 1.])
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_to_main(tensor: Tensor) -> Tensor:
    """Gather the full tensor on the CPU of process 0; other processes get a ``meta`` tensor. All must call this.

    Example:
        >>> from pvvae_plugin.functional.sharded import gather_to_main
        >>> gather_to_main(torch.ones(3)).device
        device(type='cpu')
    """
    tensor = whole(tensor)
    main = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    return tensor.cpu() if main else tensor.to('meta')


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Shard a tensor like ``like`` and move it to the same device. All processes must call this with equal tensors.

    Example:
        >>> from pvvae_plugin.functional.sharded import shard_like
        >>> shard_like(torch.ones(3), like=torch.zeros(3))  # ``like`` is not sharded, so the result is not either
        tensor([1., 1., 1.])
    """
    tensor = tensor.to(like.device)
    if isinstance(tensor, DTensor) or not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements)

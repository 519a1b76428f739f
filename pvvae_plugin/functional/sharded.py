"""Tensors of which each process holds a share (``DTensor``, as FSDP leaves weights). Whole tensors pass as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(module: nn.Module) -> bool:
    """Whether processes share the weights of a module, so that all of them must take part in a forward pass."""
    return any(isinstance(p, DTensor) for p in module.parameters())


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_numel(tensor: Tensor) -> int:
    """Numbers of a tensor that this process holds."""
    return local(tensor).numel()


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor in every process. All processes must call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_to_main(tensor: Tensor) -> Tensor:
    """The whole of a tensor on the CPU of process 0, elsewhere its shape alone (on ``meta``); all must call."""
    tensor = whole(tensor)
    main = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    return tensor.cpu() if main else tensor.to('meta')


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in every process, shared out as ``like`` is, on its device. All processes must call."""
    tensor = tensor.to(like.device)
    if isinstance(tensor, DTensor) or not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements)

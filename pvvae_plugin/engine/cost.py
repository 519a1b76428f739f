"""What a run will cost, found without running it: the network is traced on the meta device, which has no data."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pvvae_plugin.registry import MODELS


@dataclass(frozen=True)
class BackboneCost:
    """Cost of a VAE for one clip.

    Attributes:
        parameters: Number of parameters.
        encode_flops: Floating-point operations (2 for each multiply-add, attention included) of encoding.
        decode_flops: The same for decoding.
        encode_activation_bytes: What autograd keeps of encoding for the backward pass, in float32.
        decode_activation_bytes: The same for decoding.
        encode_peak_bytes: Most that is alive at once while encoding without autograd, in float32, weights aside.
        latent_shape: ``(C, t, h, w)``.
    """

    parameters: int
    encode_flops: int
    decode_flops: int
    encode_activation_bytes: int
    decode_activation_bytes: int
    encode_peak_bytes: int
    latent_shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class HeadCost:
    """Cost of one call of a generator's head for one clip.

    Attributes:
        parameters: Number of parameters.
        flops: Floating-point operations (2 for each multiply-add, attention included).
        activation_bytes: What autograd keeps for the backward pass, in float32, by attention as fused kernels compute
            it. With gradient checkpointing less than there is: the inputs to recompute from are not counted.
    """

    parameters: int
    flops: int
    activation_bytes: int


def backbone_cost(backbone: dict, num_frames: int, height: int, width: int) -> BackboneCost:
    """Trace encode + decode of one clip ``(1, 3, T, H, W)``.

    Args:
        backbone: Config of a VAE.
        num_frames: ``T``.
        height: ``H``.
        width: ``W``.
    """
    vae = _build(backbone)
    video = torch.empty(1, 3, num_frames, height, width, device='meta')
    with _recorded(vae) as encode:
        latents = vae.encode(video).mode()
    with _recorded(vae) as decode:
        vae.decode(latents)
    encode_peak = peak_bytes(vae, lambda: vae.encode(video))
    return BackboneCost(
        parameters=_count(vae),
        encode_flops=encode.flops,
        decode_flops=decode.flops,
        encode_activation_bytes=encode.activation_bytes,
        decode_activation_bytes=decode.activation_bytes,
        encode_peak_bytes=encode_peak,
        latent_shape=tuple(latents.shape[1:]),
    )


@torch.no_grad()
def peak_bytes(module: nn.Module, call: Callable[[], Any]) -> int:
    """Most bytes of results that are alive at once during a call without autograd, the module's weights aside.

    Counted as they are allocated, without the workspace of kernels and the allocator's slack; norms as fused kernels
    compute them.

    Args:
        module: On the meta device.
        call: Runs it on meta tensors.
    """
    with _FusedNorm(), _PeakMemory(module) as memory:
        call()
    return memory.peak


def head_cost(head: dict, latent_shape: tuple[int, int, int, int]) -> HeadCost:
    """Trace one call of a head for one clip's latents.

    Args:
        head: Config of a network ``(latents, times, labels) -> velocity``, e.g. :class:`LatentDiT`.
        latent_shape: ``(C, t, h, w)``.
    """
    network = _build(head)
    with torch.device('meta'):
        latents, times = torch.empty(1, *latent_shape), torch.empty(1)
        labels = None if network.null_label is None else torch.empty(1, dtype=torch.long)
    with _recorded(network) as call:
        network(latents, times, labels)
    return HeadCost(_count(network), call.flops, call.activation_bytes)


def convolution_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP a second that this device reaches in a plain 3x3x3 convolution, measured for about ``seconds``."""
    channels, size = (256, 32) if device.type == 'cuda' else (32, 32)
    conv = nn.Conv3d(channels, channels, 3, padding=1, device=device, dtype=dtype)
    conv = conv.to(memory_format=torch.channels_last_3d)
    # Two clips: of a single one some CPU builds make a case of its own, several times slower.
    x = torch.randn(2, channels, 8, size, size, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    return _rate(lambda: conv(x), 2 * 27 * channels**2 * x[:, 0].numel(), device, seconds)


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP a second that this device reaches in a plain matrix product, measured for about ``seconds``."""
    rows, width = (8192, 1024) if device.type == 'cuda' else (512, 512)
    a = torch.randn(rows, width, device=device, dtype=dtype)
    b = torch.randn(width, 4 * width, device=device, dtype=dtype)
    return _rate(lambda: a @ b, 2 * rows * width * 4 * width, device, seconds)


@torch.no_grad()
def _rate(call: Callable[[], Any], flops: int, device: torch.device, seconds: float) -> float:
    wait = torch.cuda.synchronize if device.type == 'cuda' else (lambda: None)
    for _ in range(3):
        call()
    wait()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        call()
        wait()
        count += 1
    return count * flops / (time.perf_counter() - start)


def _build(config: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope('pvvae_plugin'), torch.device('meta'):
        return MODELS.build(dict(config))


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@dataclass
class _Record:
    flops: int = 0
    activation_bytes: int = 0


@contextmanager
def _recorded(module: nn.Module) -> Iterator[_Record]:
    """Operations and what autograd keeps of them, but for the module's own weights; complete at the block's end."""
    record = _Record()
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no two could share an address

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda t: t), _FusedAttention(keep), FlopCounterMode(display=False) as counter:
        yield record
    record.flops = counter.get_total_flops()
    record.activation_bytes = sum(storage.nbytes() for storage in kept.values())


class _FusedAttention(TorchFunctionMode):
    """Lets attention keep its inputs and its output alone: meta tensors take the path that keeps every weight, too."""

    def __init__(self, keep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.keep = keep

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with saved_tensors_hooks(lambda t: t, lambda t: t):
            out = func(*args, **(kwargs or {}))
            out = out.transpose(-3, -2).contiguous().transpose(-3, -2)  # their layout, which spares a later copy
        for tensor in (*args[:3], out):
            self.keep(tensor)
        return out


class _FusedNorm(TorchFunctionMode):
    """Lets an RMS norm allocate its result alone: meta tensors take the path of one operation after another."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return torch.empty_like(args[0]) if func is F.rms_norm else func(*args, **(kwargs or {}))


class _PeakMemory(TorchDispatchMode):
    """Follows how many bytes of results are alive, a module's own weights aside.

    Attributes:
        peak (int): The most so far.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # Views of weights are results, too.
        self.own = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in self.alive and storage._cdata not in self.own:
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.alive.values()))
        return out

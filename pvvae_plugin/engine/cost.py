"""FLOPs and memory of a run, estimated by tracing the network on the meta device."""

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
        encode_flops: Floating-point operations of encoding (2 per multiply-add, including attention).
        decode_flops: The same for decoding.
        encode_activation_bytes: Bytes that autograd saves in encoding for the backward pass, in float32.
        decode_activation_bytes: The same for decoding.
        encode_peak_bytes: Peak bytes of encoding without autograd, in float32, excluding weights.
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
    """Cost of a forward pass of a generator's head, per clip.

    Attributes:
        parameters: Number of parameters.
        flops: Floating-point operations (2 per multiply-add, including attention).
        activation_bytes: Bytes that autograd saves for the backward pass, in float32, with fused attention kernels. An
            underestimate with gradient checkpointing, because the saved inputs of the blocks are not counted.
    """

    parameters: int
    flops: int
    activation_bytes: int


def backbone_cost(backbone: dict, num_frames: int, height: int, width: int) -> BackboneCost:
    """Trace encoding and decoding of a clip ``(1, 3, T, H, W)``.

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
    """Return the peak bytes of results during a call without autograd, excluding the module's weights.

    Tensors are counted when they are allocated. Kernel workspace and allocator overhead are not included. Norms are
    counted as fused kernels.

    Args:
        module: Module on the meta device.
        call: Function that runs the module on meta tensors.
    """
    with _FusedNorm(), _PeakMemory(module) as memory:
        call()
    return memory.peak


def head_cost(head: dict, latent_shape: tuple[int, int, int, int]) -> HeadCost:
    """Trace a forward pass of a head for the latents of a clip.

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
    """Measure the FLOP/s of this device in a plain 3x3x3 convolution, for about ``seconds`` seconds."""
    channels, size = (256, 32) if device.type == 'cuda' else (32, 32)
    conv = nn.Conv3d(channels, channels, 3, padding=1, device=device, dtype=dtype)
    conv = conv.to(memory_format=torch.channels_last_3d)
    # Two clips: some CPU builds use a special path for a single clip, which is several times slower.
    x = torch.randn(2, channels, 8, size, size, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    return _rate(lambda: conv(x), 2 * 27 * channels**2 * x[:, 0].numel(), device, seconds)


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Measure the FLOP/s of this device in a plain matrix product, for about ``seconds`` seconds."""
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
    """Record FLOPs and saved activations, excluding the module's weights. The record is filled on exit."""
    record = _Record()
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # hold references: a freed address could be reused

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
    """Save only inputs and output of attention. Meta tensors take a path that also saves the attention weights."""

    def __init__(self, keep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.keep = keep

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with saved_tensors_hooks(lambda t: t, lambda t: t):
            out = func(*args, **(kwargs or {}))
            out = out.transpose(-3, -2).contiguous().transpose(-3, -2)  # layout of fused kernels, saves a copy later
        for tensor in (*args[:3], out):
            self.keep(tensor)
        return out


class _FusedNorm(TorchFunctionMode):
    """Allocate only the result of an RMS norm. Meta tensors take the unfused path, which allocates more."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return torch.empty_like(args[0]) if func is F.rms_norm else func(*args, **(kwargs or {}))


class _PeakMemory(TorchDispatchMode):
    """Track the bytes of live results, excluding a module's weights.

    Attributes:
        peak (int): Peak so far, in bytes.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # Views of weights share their storage and are not counted.
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

"""Operations of the VAE's layers, each with a fast implementation and a plain reference.

The fast path is the default; :func:`plain_path` selects the reference. Both agree up to rounding, forward and backward.
They differ only in memory layout and number of operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6
_plain_paths = 0  # number of open contexts
_lock = Lock()


@contextmanager
def plain_path() -> Iterator[None]:
    """Use the plain reference operations within the context, for comparison or debugging.

    Applies to all threads of the process until the last such context ends.
    """
    _count_plain_path(1)
    try:
        yield
    finally:
        _count_plain_path(-1)


def _count_plain_path(change: int) -> None:
    global _plain_paths
    with _lock:
        _plain_paths += change


def is_fast() -> bool:
    """Return True if the fast path is active."""
    return not _plain_paths


def prepend(past: Tensor | int, x: Tensor) -> Tensor:
    """Prepend frames to ``x (N, C, T, H, W)``: the given ones, or a number of zero frames."""
    if isinstance(past, int):
        return F.pad(x, (0, 0, 0, 0, past, 0)) if past else x
    return torch.cat([past, x], dim=2)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """Apply RMS norm over the channels of ``x (N, C, T, H, W)``, with ``weight (C,)``."""
    # In channels-last memory format both permutations are free, and the normalized axis is contiguous.
    x = x.permute(0, 2, 3, 4, 1)
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps=EPS).permute(0, 4, 1, 2, 3)


def norm_silu(x: Tensor, weight: Tensor, past: Tensor | int = 0) -> Tensor:
    """Apply :func:`rms_norm` and SiLU, and prepend ``past`` frames (already normalized) for a causal convolution.

    The fast path writes each frame directly into the padded output and saves only ``x`` for the backward pass.

    Args:
        x: ``(N, C, T, H, W)``.
        weight: Weight of the norm, ``(C,)``.
        past: Frames ``(N, C, P, H, W)`` to prepend, or the number of zero frames.

    Returns:
        ``(N, C, P + T, H, W)``, in the dtype of ``x``.
    """
    # A compiler fuses the plain form and cannot trace the custom one.
    if not is_fast() or torch.compiler.is_compiling():
        return prepend(past, F.silu(rms_norm(x, weight)))
    if isinstance(past, int):
        return _NormSiLU.apply(x, weight, None, past)
    return _NormSiLU.apply(x, weight, past, past.shape[2])


def _without_autocast(x: Tensor) -> AbstractContextManager:
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, past: Tensor | None, num_past: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.num_past = num_past
        n, c, t, h, w = x.shape
        buffer = x.new_empty(n, num_past + t, h, w, c)  # channels-last memory
        here, there = x.permute(0, 2, 3, 4, 1), buffer[:, num_past:]
        # Keep the input dtype under autocast: the norm already accumulates in float32.
        with _without_autocast(x):
            if x.device.type == 'cpu' and x.dtype.itemsize >= 4:
                # On a CPU, rms_norm would allocate three more tensors of this size, which is slow.
                scale = torch.linalg.vector_norm(here, dim=-1, keepdim=True).square_().div_(c).add_(EPS).rsqrt_()
                F.silu(torch.mul(here, scale, out=there).mul_(weight.to(x.dtype)), inplace=True)
            else:
                normed = rms_norm(x, weight).permute(0, 2, 3, 4, 1)
                torch.ops.aten.silu.out(normed, out=there)
        if past is not None:
            buffer[:, :num_past] = past.permute(0, 2, 3, 4, 1)
        elif num_past:
            buffer[:, :num_past].zero_()
        return buffer.permute(0, 4, 1, 2, 3)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()  # create_graph=True: second derivatives are needed
        x, weight = (
            saved if again and saved.requires_grad else saved.detach().requires_grad_() for saved in ctx.saved_tensors
        )
        with torch.enable_grad(), _without_autocast(x):
            out = F.silu(rms_norm(x, weight))
        of_x, of_weight = torch.autograd.grad(out, (x, weight), grad[:, :, ctx.num_past :], create_graph=again)
        return of_x, of_weight, grad[:, :, : ctx.num_past] if ctx.needs_input_grad[2] else None, None


def conv3d(x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Apply a 3D convolution with "same" padding in space and no padding in time."""
    taps, kh, kw = weight.shape[2:]
    padding = (0, kh // 2, kw // 2)
    if not is_fast():
        return F.conv3d(x, weight, bias, stride, padding)
    if taps == 1 and stride[0] == 1:
        # Frames are independent, so use 2D kernels, which libraries optimize best.
        images = F.conv2d(_as_images(x), weight[:, :, 0], bias, stride[1:], padding[1:])
        return _as_video(images, x.shape[0])
    if _torch_would_avoid_onednn(x):
        if torch.is_grad_enabled():  # the backward pass would also avoid oneDNN
            return _tap_by_tap(x, weight, bias, stride)
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride, padding)


def _tap_by_tap(x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Compute :func:`conv3d` as a sum of 2D convolutions, one per temporal tap."""
    taps, padding = weight.shape[2], (weight.shape[3] // 2, weight.shape[4] // 2)
    frames = (x.shape[2] - taps) // stride[0] + 1
    total = None
    for tap in range(taps):
        seen = _as_images(x[:, :, tap : tap + (frames - 1) * stride[0] + 1 : stride[0]])
        images = F.conv2d(seen, weight[:, :, tap], None if tap else bias, stride[1:], padding)
        total = images if total is None else total + images
    return _as_video(total, x.shape[0])


def _torch_would_avoid_onednn(x: Tensor) -> bool:
    # For a single small float32 clip, torch selects its native kernel, which is 2 to 5 times slower.
    return (
        x.device.type == 'cpu'
        and x.dtype == torch.float32
        and x.shape[0] == 1
        and x.shape[1] * x.shape[2] * x.shape[3] <= 20480
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled('cpu')
        and not torch.compiler.is_compiling()
    )


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Upsample height and width by 2 (nearest), then apply a 3 x 3 convolution.

    After repetition, several of the nine taps see the same input position. The fast path adds their weights first. The
    result is a transposed 4 x 4 convolution with 4 taps per output instead of 9, without the large repeated tensor.

    Args:
        x: ``(N, C, T, H, W)``.
        weight: ``(D, C, 1, 3, 3)``.
        bias: ``(D,)``.

    Returns:
        ``(N, D, T, 2 H, 2 W)``.
    """
    images, kernel = _as_images(x), weight[:, :, 0]
    if is_fast():
        images = F.conv_transpose2d(images, _merged(kernel), bias, stride=2, padding=1)
    else:
        images = F.conv2d(F.interpolate(images, scale_factor=2, mode='nearest'), kernel, bias, padding=1)
    return _as_video(images, x.shape[0])


def _merged(kernel: Tensor) -> Tensor:
    """Convert the kernel ``(D, C, 3, 3)`` to that of the transposed convolution, ``(C, D, 4, 4)``."""
    # Input position i is repeated at 2 i and 2 i + 1, which affect outputs 2 i - 1 to 2 i + 2. So the 4-tap kernel is
    # the flipped 3-tap kernel plus a copy shifted by one. Add in float32 to avoid rounding half-precision sums.
    turned = kernel.float().flip(2, 3) if kernel.dtype.itemsize < 4 else kernel.flip(2, 3)
    rows = F.pad(turned, (0, 0, 0, 1)) + F.pad(turned, (0, 0, 1, 0))
    both = F.pad(rows, (0, 1, 0, 0)) + F.pad(rows, (1, 0, 0, 0))
    return both.transpose(0, 1).to(kernel.dtype).contiguous(memory_format=torch.channels_last)


def _as_images(x: Tensor) -> Tensor:
    """Reshape ``(N, C, T, H, W)`` to ``(N * T, C, H, W)``, without a copy in channels-last memory format."""
    return x.permute(0, 2, 1, 3, 4).flatten(0, 1)


def _as_video(images: Tensor, batch: int) -> Tensor:
    return images.unflatten(0, (batch, images.shape[0] // batch)).permute(0, 2, 1, 3, 4)

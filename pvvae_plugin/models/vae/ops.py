"""What the VAE's layers compute, the fast way, beside the plain way that it must agree with.

The fast way is taken unless :func:`plain_path` says otherwise. It changes where results are written and how many
operations they take, never what they are: both agree to rounding, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-6
_plain_paths = 0  # how many contexts are open
_lock = Lock()


@contextmanager
def plain_path() -> Iterator[None]:
    """Compute with one library call after another, as the layers' definitions read: to compare with, or to debug.

    That holds for all threads of the process, until the last such context ends.
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
    """Whether the fast way is taken."""
    return not _plain_paths


def prepend(past: Tensor | int, x: Tensor) -> Tensor:
    """Put frames in front of ``x (N, C, T, H, W)``: those given, or that many of zeros."""
    if isinstance(past, int):
        return F.pad(x, (0, 0, 0, 0, past, 0)) if past else x
    return torch.cat([past, x], dim=2)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """RMS norm over the channels of each position, ``x (N, C, T, H, W)``, ``weight (C,)``."""
    # On channels-last memory both permutations are free, and the normalised axis is contiguous.
    x = x.permute(0, 2, 3, 4, 1)
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps=EPS).permute(0, 4, 1, 2, 3)


def norm_silu(x: Tensor, weight: Tensor, past: Tensor | int = 0) -> Tensor:
    """SiLU of :func:`rms_norm`, behind ``past`` frames (which are normalised already) for a causal convolution.

    The fast way writes each frame where the convolution will read it, and keeps nothing but ``x`` for the backward
    pass.

    Args:
        x: ``(N, C, T, H, W)``.
        weight: Of the norm, ``(C,)``.
        past: Frames ``(N, C, P, H, W)`` to put in front, or how many of zeros.

    Returns:
        ``(N, C, P + T, H, W)``, in the type of ``x``.
    """
    # A compiler fuses the plain form by itself, and cannot look into ours.
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
        # Under autocast too, the norm keeps the type it is given: it sums in float32 by itself.
        with _without_autocast(x):
            if x.device.type == 'cpu' and x.dtype.itemsize >= 4:
                # rms_norm would make three more tensors of this size on a CPU, and new memory is slow there.
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
        again = torch.is_grad_enabled()  # create_graph=True: gradients are to be differentiated in turn
        x, weight = (
            saved if again and saved.requires_grad else saved.detach().requires_grad_() for saved in ctx.saved_tensors
        )
        with torch.enable_grad(), _without_autocast(x):
            out = F.silu(rms_norm(x, weight))
        of_x, of_weight = torch.autograd.grad(out, (x, weight), grad[:, :, ctx.num_past :], create_graph=again)
        return of_x, of_weight, grad[:, :, : ctx.num_past] if ctx.needs_input_grad[2] else None, None


def conv3d(x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """3D convolution, padded in space so that a stride of 1 keeps the sides, and not in time."""
    taps, kh, kw = weight.shape[2:]
    padding = (0, kh // 2, kw // 2)
    if not is_fast():
        return F.conv3d(x, weight, bias, stride, padding)
    if taps == 1 and stride[0] == 1:
        # Frames are independent: as many images, for which libraries have their best kernels.
        images = F.conv2d(_as_images(x), weight[:, :, 0], bias, stride[1:], padding[1:])
        return _as_video(images, x.shape[0])
    if _torch_would_avoid_onednn(x):
        if torch.is_grad_enabled():  # the backward pass would avoid it, too
            return _tap_by_tap(x, weight, bias, stride)
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride, padding)


def _tap_by_tap(x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """The same as a sum of 2D convolutions of frames, one for each tap in time."""
    taps, padding = weight.shape[2], (weight.shape[3] // 2, weight.shape[4] // 2)
    frames = (x.shape[2] - taps) // stride[0] + 1
    total = None
    for tap in range(taps):
        seen = _as_images(x[:, :, tap : tap + (frames - 1) * stride[0] + 1 : stride[0]])
        images = F.conv2d(seen, weight[:, :, tap], None if tap else bias, stride[1:], padding)
        total = images if total is None else total + images
    return _as_video(total, x.shape[0])


def _torch_would_avoid_onednn(x: Tensor) -> bool:
    # A single small clip in float32: torch then takes a kernel of its own, which is 2 to 5 times slower.
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
    """Repeat each position twice in height and width, then convolve with 3 x 3.

    Of the nine taps at least two always meet the same repeated position. The fast way adds their weights first: it is
    a transposed convolution with a 4 x 4 kernel, 4 taps for each output instead of 9, and the large repeated tensor is
    never made.

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
    """Kernel ``(D, C, 3, 3)`` of what follows a repetition, to ``(C, D, 4, 4)`` of the transposed convolution."""
    # Position i of the input is repeated at 2 i and 2 i + 1, which reach the outputs 2 i - 1 to 2 i + 2: a 3-tap
    # kernel turned round, and once more one place further. Sums of rounded weights would be rounded again: float32.
    turned = kernel.float().flip(2, 3) if kernel.dtype.itemsize < 4 else kernel.flip(2, 3)
    rows = F.pad(turned, (0, 0, 0, 1)) + F.pad(turned, (0, 0, 1, 0))
    both = F.pad(rows, (0, 1, 0, 0)) + F.pad(rows, (1, 0, 0, 0))
    return both.transpose(0, 1).to(kernel.dtype).contiguous(memory_format=torch.channels_last)


def _as_images(x: Tensor) -> Tensor:
    """``(N, C, T, H, W)`` to ``(N * T, C, H, W)``: no copy where memory is channels-last."""
    return x.permute(0, 2, 1, 3, 4).flatten(0, 1)


def _as_video(images: Tensor, batch: int) -> Tensor:
    return images.unflatten(0, (batch, images.shape[0] // batch)).permute(0, 2, 1, 3, 4)

"""Layers of a causal video VAE. All tensors are ``(N, C, T, H, W)``, kept channels-last in memory.

Nothing here mixes a frame with a later one, and nothing normalises or attends across time: a prefix of the input
gives the same prefix of the output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .memory import Memory


class CausalConv3d(nn.Conv3d):
    """3D convolution that sees the present and the past only.

    Time is padded with zeros on the left, space symmetrically. With a temporal stride of 2, ``1 + T`` frames become
    ``1 + T / 2``: frame 0 keeps a latent frame of its own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int, int] = (3, 3, 3),
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        _, kh, kw = kernel_size
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=(0, kh // 2, kw // 2))

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        taps = self.kernel_size[0]
        if memory is not None and taps > 1:
            return super().forward(memory.extend(x, taps, self.stride[0]))
        if x.shape[2] == 1:
            # A still image: all taps but the last would meet only padding.
            return F.conv3d(x, self.weight[:, :, -1:], self.bias, self.stride, self.padding)
        if taps > 1:
            x = F.pad(x, (0, 0, 0, 0, taps - 1, 0))
        return super().forward(x)


class ChannelRMSNorm(nn.Module):
    """RMS norm over the channels of each position, so that frames and places stay independent."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        # On channels-last memory both permutations are free, and the normalised axis is contiguous.
        x = x.permute(0, 2, 3, 4, 1)  # (N, T, H, W, C)
        x = F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), eps=1e-6)
        return x.permute(0, 4, 1, 2, 3)  # (N, C, T, H, W)


class ResidualBlock(nn.Module):
    """Two normalised, causal 3x3x3 convolutions around a skip connection."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelRMSNorm(in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels)
        self.norm2 = ChannelRMSNorm(out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels)
        # Each block starts as its skip connection, the whole network as a nearly linear autoencoder (ours).
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)), memory)
        h = self.conv2(F.silu(self.norm2(h)), memory)
        return self.skip(x) + h


class FrameAttention(nn.Module):
    """Single-head self-attention among the positions of each frame, never between frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(channels)
        self.qkv = nn.Conv3d(channels, 3 * channels, 1)
        self.proj = nn.Conv3d(channels, channels, 1)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        # Frames do not see one another: there is nothing to remember.
        n, c, t, h, w = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 4, 1).reshape(n * t, 1, h * w, 3 * c)
        out = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))  # (N * T, 1, H * W, C)
        out = out.reshape(n, t, h, w, c).permute(0, 4, 1, 2, 3)  # (N, C, T, H, W)
        return x + self.proj(out)


class Downsample(nn.Module):
    """Strided causal convolution: time by ``stride[0]``, height and width by ``stride[1]`` (each 1 or 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        time, space = stride
        kernel = (3 if time == 2 else 1, 3, 3)
        self.conv = CausalConv3d(in_channels, out_channels, kernel, (time, space, space))

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        return self.conv(x, memory)


class Upsample(nn.Module):
    """Mirror of :class:`Downsample`: ``1 + T`` frames become ``1 + 2 T``, sides are repeated and convolved.

    Time first, while frames are still small: channels become pairs of frames, and the first of them is dropped,
    because latent frame 0 stands for one frame alone.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        time, self.space = stride
        self.time_conv = CausalConv3d(in_channels, 2 * in_channels, (3, 1, 1)) if time == 2 else None
        self.conv = CausalConv3d(in_channels, out_channels, (1, 3, 3))

    def forward(self, x: Tensor, memory: Memory | None = None) -> Tensor:
        if self.time_conv is not None:
            x = frames_from_channels(self.time_conv(x, memory), is_start=memory is None or memory.first)
        if self.space == 2:
            n, c, t, h, w = x.shape
            # The 2D path of interpolate keeps channels-last memory; frames fold into the batch without a copy.
            x = x.permute(0, 2, 1, 3, 4).reshape(n * t, c, h, w)
            x = F.interpolate(x, scale_factor=2, mode='nearest')
            x = x.reshape(n, t, c, 2 * h, 2 * w).permute(0, 2, 1, 3, 4)
        return self.conv(x, memory)


def frames_from_channels(x: Tensor, is_start: bool = True) -> Tensor:
    """``(N, 2 C, 1 + T, H, W)`` to ``(N, C, 1 + 2 T, H, W)``: each frame gives two, the very first gives one.

    Without ``is_start`` the very first is in an earlier chunk, and ``T`` frames give ``2 T``.
    """
    n, c, t, h, w = x.shape
    x = x.permute(0, 2, 3, 4, 1).reshape(n, t, h, w, 2, c // 2)
    x = x.permute(0, 1, 4, 2, 3, 5).reshape(n, 2 * t, h, w, c // 2)
    return x[:, int(is_start) :].permute(0, 4, 1, 2, 3)

"""Layers of a causal video VAE. All tensors are ``(N, C, T, H, W)``, kept channels-last in memory.

Nothing here mixes a frame with a later one, and nothing normalises or attends across time: a prefix of the input
gives the same prefix of the output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ops import conv3d, is_fast, norm_silu, prepend, rms_norm, upsample_conv
from .streaming import FeatureCache


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

    def forward(self, x: Tensor, cache: FeatureCache | None = None, norm: ChannelRMSNorm | None = None) -> Tensor:
        """Convolve ``x (N, C, T, H, W)``, with ``norm`` its SiLU after that norm."""
        taps, stride = self.kernel_size[0], self.stride[0]
        past: Tensor | int = taps - 1
        weight = self.weight
        if cache is not None and not cache.first and taps > 1:
            past = cache.past(x, taps - stride)
        elif x.shape[2] == 1 and is_fast():
            # A first frame alone: all taps but the last would meet only padding.
            past, weight = 0, weight[:, :, -1:]
        x = prepend(past, x) if norm is None else norm_silu(x, norm.weight, past)
        if cache is not None and taps > 1:
            cache.keep(x, taps - stride)
        return conv3d(x, weight, self.bias, self.stride)


class ChannelRMSNorm(nn.Module):
    """RMS norm over the channels of each position, so that frames and places stay independent."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight)


class ResidualBlock(nn.Module):
    """Two normalised, causal 3x3x3 convolutions around a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelRMSNorm(channels)
        self.conv1 = CausalConv3d(channels, channels)
        self.norm2 = ChannelRMSNorm(channels)
        self.conv2 = CausalConv3d(channels, channels)
        # Each block starts as its skip connection, the whole network as a nearly linear autoencoder (ours).
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        h = self.conv1(x, cache, self.norm1)
        h = self.conv2(h, cache, self.norm2)
        return h.add_(x)


class FrameAttention(nn.Module):
    """Single-head self-attention among the positions of each frame, never between frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(channels)
        self.qkv = CausalConv3d(channels, 3 * channels, (1, 1, 1))
        self.proj = CausalConv3d(channels, channels, (1, 1, 1))

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
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
        time, self.space = stride
        kernel = (3 if time == 2 else 1, 3, 3)
        self.conv = CausalConv3d(in_channels, out_channels, kernel, (time, self.space, self.space))

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        return self.conv(x, cache)


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

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        if self.time_conv is not None:
            x = frames_from_channels(self.time_conv(x, cache), is_start=cache is None or cache.first)
        if self.space == 2:
            return upsample_conv(x, self.conv.weight, self.conv.bias)
        return self.conv(x)


def frames_from_channels(x: Tensor, is_start: bool = True) -> Tensor:
    """``(N, 2 C, 1 + T, H, W)`` to ``(N, C, 1 + 2 T, H, W)``: each frame gives two, the very first gives one.

    Without ``is_start`` the very first is in an earlier chunk, and ``T`` frames give ``2 T``.
    """
    n, c, t, h, w = x.shape
    x = x.permute(0, 2, 3, 4, 1).reshape(n, t, h, w, 2, c // 2)
    x = x.permute(0, 1, 4, 2, 3, 5).reshape(n, 2 * t, h, w, c // 2)
    return x[:, int(is_start) :].permute(0, 4, 1, 2, 3)

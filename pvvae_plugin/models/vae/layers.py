"""Layers of a causal video VAE. All tensors are ``(N, C, T, H, W)`` in channels-last memory format.

No layer sees later frames, and none normalizes or attends across time. A prefix of the input therefore gives the
same prefix of the output.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ops import conv3d, is_fast, norm_silu, prepend, rms_norm, upsample_conv
from .streaming import FeatureCache


class CausalConv3d(nn.Conv3d):
    """Causal 3D convolution.

    Time is zero-padded on the left only, space symmetrically. With a temporal stride of 2, ``1 + T`` frames become
    ``1 + T / 2``: frame 0 maps to a separate latent frame.
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
        """Convolve ``x (N, C, T, H, W)``. If ``norm`` is given, apply it and SiLU first."""
        taps, stride = self.kernel_size[0], self.stride[0]
        past: Tensor | int = taps - 1
        weight = self.weight
        if cache is not None and not cache.first and taps > 1:
            past = cache.past(x, taps - stride)
        elif x.shape[2] == 1 and is_fast():
            # For a single first frame, all taps except the last see only padding.
            past, weight = 0, weight[:, :, -1:]
        x = prepend(past, x) if norm is None else norm_silu(x, norm.weight, past)
        if cache is not None and taps > 1:
            cache.keep(x, taps - stride)
        return conv3d(x, weight, self.bias, self.stride)


class ChannelRMSNorm(nn.Module):
    """RMS norm over channels. Frames and positions stay independent."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight)


class ResidualBlock(nn.Module):
    """Residual block of two causal 3x3x3 convolutions, each after norm and SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelRMSNorm(channels)
        self.conv1 = CausalConv3d(channels, channels)
        self.norm2 = ChannelRMSNorm(channels)
        self.conv2 = CausalConv3d(channels, channels)
        # Each block starts as the identity, and the network as a nearly linear autoencoder (ours).
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        h = self.conv1(x, cache, self.norm1)
        h = self.conv2(h, cache, self.norm2)
        return h.add_(x)


class FrameAttention(nn.Module):
    """Single-head self-attention within each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(channels)
        self.qkv = CausalConv3d(channels, 3 * channels, (1, 1, 1))
        self.proj = CausalConv3d(channels, channels, (1, 1, 1))

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        # Frames are independent, so nothing needs caching.
        n, c, t, h, w = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 4, 1).reshape(n * t, 1, h * w, 3 * c)
        out = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))  # (N * T, 1, H * W, C)
        out = out.reshape(n, t, h, w, c).permute(0, 4, 1, 2, 3)  # (N, C, T, H, W)
        return x + self.proj(out)


class Downsample(nn.Module):
    """Causal convolution that downsamples time by ``stride[0]`` and space by ``stride[1]`` (each 1 or 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        time, self.space = stride
        kernel = (3 if time == 2 else 1, 3, 3)
        self.conv = CausalConv3d(in_channels, out_channels, kernel, (time, self.space, self.space))

    def forward(self, x: Tensor, cache: FeatureCache | None = None) -> Tensor:
        return self.conv(x, cache)


class Upsample(nn.Module):
    """Mirror of :class:`Downsample`: ``1 + T`` frames become ``1 + 2 T``, then space is repeated and convolved.

    Time is upsampled first, while frames are small. Channels become pairs of frames. The first frame of the first pair
    is dropped, because latent frame 0 represents a single frame.
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
    """Reshape ``(N, 2 C, 1 + T, H, W)`` to ``(N, C, 1 + 2 T, H, W)``: two frames per input frame, one for the first.

    If ``is_start`` is False, the first frame is in an earlier chunk, and ``T`` frames give ``2 T``.
    """
    n, c, t, h, w = x.shape
    x = x.permute(0, 2, 3, 4, 1).reshape(n, t, h, w, 2, c // 2)
    x = x.permute(0, 1, 4, 2, 3, 5).reshape(n, 2 * t, h, w, c // 2)
    return x[:, int(is_start) :].permute(0, 4, 1, 2, 3)

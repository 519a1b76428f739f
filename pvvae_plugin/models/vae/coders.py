"""Encoder and decoder of the causal convolutional VAE (paper, network section; widths and depths are ours)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .layers import CausalConv3d, ChannelRMSNorm, Downsample, FrameAttention, ResidualBlock, Upsample
from .streaming import FeatureCache

Strides = Sequence[tuple[int, int]]


class _Coder(nn.Module):
    """Base class of encoder and decoder: runs blocks, optionally with gradient checkpointing."""

    gradient_checkpointing = False

    # Levels up to this many changes of resolution, counted from full resolution, can be tiled.
    TILED_STAGES = 2

    def run(self, block: Callable[..., Tensor], x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Apply ``block``, with gradient checkpointing if enabled."""
        if self.gradient_checkpointing and self.training and x.requires_grad and cache is None:
            # Re-entrant checkpointing does not support torch.autograd.grad, which the adaptive GAN weight uses.
            return checkpoint(block, x, use_reentrant=False)
        return block(x, cache)

    def compile_blocks(self) -> None:
        """Compile every block, once per input shape."""
        # Blocks of the same class share a cache with one entry per width; torch's default limit is too small.
        torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 256)
        for block in [self.stem, *self.levels, *self.middle, self.out]:
            block.compile(dynamic=False)

    def run_all(self, blocks: Iterable[nn.Module], x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Apply :meth:`run` to each block in sequence."""
        for block in blocks:
            x = self.run(block, x, cache)
        return x


def middle(channels: int, attention: bool) -> nn.ModuleList:
    """Build the blocks at the latent resolution."""
    blocks = [ResidualBlock(channels), ResidualBlock(channels)]
    if attention:
        blocks.insert(1, FrameAttention(channels))
    return nn.ModuleList(blocks)


class Encoder(_Coder):
    """Encoder from a video to posterior moments.

    Args:
        widths: Channels at each level, from full resolution to latents; one more than the number of strides.
        num_blocks: Residual blocks at each level.
        strides: (time, space) stride per stage.
        patch_size: Side of the pixel patches that the stem folds into channels; 1 for none.
        latent_channels: Channels of the latents; the output has twice as many (mean, log-variance).
        attention: Use attention within each frame at the latent resolution.

    Attributes:
        unit: Pixels per position along each side, for the features between high and low levels.
        halo: Context on each side of a tile that its features depend on, in the same positions.
        high_time: Temporal downsampling factor of the high levels.
    """

    def __init__(
        self,
        widths: Sequence[int],
        num_blocks: int,
        strides: Strides,
        patch_size: int,
        latent_channels: int,
        attention: bool,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stem = CausalConv3d(3 * patch_size**2, widths[0])
        levels: list[nn.Module] = [ResidualBlock(widths[0]) for _ in range(num_blocks)]
        for c_in, c_out, stride in zip(widths[:-1], widths[1:], strides, strict=True):
            levels.append(Downsample(c_in, c_out, stride))
            levels.extend(ResidualBlock(c_out) for _ in range(num_blocks))
        self.levels = nn.ModuleList(levels)
        self.middle = middle(widths[-1], attention)
        self.norm = ChannelRMSNorm(widths[-1])
        self.out = CausalConv3d(widths[-1], 2 * latent_channels)
        # An initial standard deviation of 0.05 keeps posterior noise small early in training (ours).
        nn.init.constant_(self.out.bias[latent_channels:], -6.0)
        self._set_tiling(strides)

    def _set_tiling(self, strides: Strides) -> None:
        stages = [i for i, block in enumerate(self.levels) if isinstance(block, Downsample)][: self.TILED_STAGES]
        self.split = stages[-1] + 1 if stages else 0
        reach = 0  # in positions of the current resolution, from low to high
        for block in reversed(self.levels[: self.split]):
            reach = reach * block.space + 1 if isinstance(block, Downsample) else reach + 2
        self.high_time, unit = (math.prod(factors) for factors in zip(*strides[: len(stages)], strict=True))
        self.unit, self.halo = self.patch_size * unit, math.ceil((reach + 1) / unit)

    def forward(self, video: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Encode ``(N, 3, T, H, W)`` to moments ``(N, 2 C, t, h, w)``. With ``cache``, encode one chunk of a video."""
        return self.low_levels(self.high_levels(video, cache), cache)

    def high_levels(self, video: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Run the levels that can be tiled: video to features with one position per ``unit`` x ``unit`` pixels."""
        p = self.patch_size
        x = rearrange(video, 'n c t (h p) (w q) -> n (c p q) t h w', p=p, q=p) if p > 1 else video
        return self.run_all(self.levels[: self.split], self.stem(x, cache), cache)

    def low_levels(self, features: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Run the other levels: features to moments."""
        x = self.run_all([*self.levels[self.split :], *self.middle], features, cache)
        return self.out(x, cache, self.norm)


class Decoder(_Coder):
    """Decoder from latents to a video; the mirror of :class:`Encoder`, with the same arguments.

    Attributes:
        temporal_reach: Number of past latent frames that an output frame depends on. A constant padding token carries
            no time, so the decoder knows its position only from observed latents within this reach.
    """

    def __init__(
        self,
        widths: Sequence[int],
        num_blocks: int,
        strides: Strides,
        patch_size: int,
        latent_channels: int,
        attention: bool,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stem = CausalConv3d(latent_channels, widths[-1])
        self.middle = middle(widths[-1], attention)
        levels: list[nn.Module] = [ResidualBlock(widths[-1]) for _ in range(num_blocks)]
        for c_in, c_out, stride in zip(widths[:0:-1], widths[-2::-1], list(strides)[::-1], strict=True):
            levels.append(Upsample(c_in, c_out, stride))
            levels.extend(ResidualBlock(c_out) for _ in range(num_blocks))
        self.levels = nn.ModuleList(levels)
        self.norm = ChannelRMSNorm(widths[0])
        self.out = CausalConv3d(widths[0], 3 * patch_size**2)
        self.temporal_reach = self._temporal_reach()
        self._set_tiling(strides)

    def _set_tiling(self, strides: Strides) -> None:
        stages = [i for i, block in enumerate(self.levels) if isinstance(block, Upsample)][-self.TILED_STAGES :]
        self.split = stages[0] if stages else len(self.levels)
        reach = 1  # in positions of the current resolution, from high to low
        for block in reversed(self.levels[self.split :]):
            reach = math.ceil((reach + 1) / block.space) if isinstance(block, Upsample) else reach + 2
        self.high_time, unit = (math.prod(factors) for factors in zip(*strides[: len(stages)], strict=True))
        self.unit, self.halo = self.patch_size * unit, reach

    def _temporal_reach(self) -> float:
        reach, frames_per_latent = 0.0, 1
        for block in [self.stem, *self.middle, *self.levels, self.out]:
            convs = [m for m in block.modules() if isinstance(m, CausalConv3d)]
            reach += sum(conv.kernel_size[0] - 1 for conv in convs) / frames_per_latent
            if isinstance(block, Upsample) and block.time_conv is not None:
                frames_per_latent *= 2
        return reach

    def forward(self, latents: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Decode ``(N, C, t, h, w)`` to ``(N, 3, T, H, W)``. With ``cache``, decode one chunk of a video."""
        return self.high_levels(self.low_levels(latents, cache), cache)

    def low_levels(self, latents: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Run the levels that are not tiled: latents to features with one position per ``unit`` x ``unit`` pixels."""
        return self.run_all([*self.middle, *self.levels[: self.split]], self.stem(latents, cache), cache)

    def high_levels(self, features: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Run the levels that can be tiled: features to video."""
        x = self.out(self.run_all(self.levels[self.split :], features, cache), cache, self.norm)
        p = self.patch_size
        return rearrange(x, 'n (c p q) t h w -> n c t (h p) (w q)', p=p, q=p) if p > 1 else x

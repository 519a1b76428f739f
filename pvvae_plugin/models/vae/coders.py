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
    """What both directions share: running blocks, checkpointed or not."""

    gradient_checkpointing = False

    # The levels of the highest resolutions, up to this many changes of it, are those that can pass in tiles.
    TILED_STAGES = 2

    def run(self, block: Callable[..., Tensor], x: Tensor, cache: FeatureCache | None) -> Tensor:
        """Apply ``block``, recomputing its activations in the backward pass if asked to."""
        if self.gradient_checkpointing and self.training and x.requires_grad and cache is None:
            # Re-entrant checkpointing cannot serve torch.autograd.grad, which the adaptive GAN weight uses.
            return checkpoint(block, x, use_reentrant=False)
        return block(x, cache)

    def compile_blocks(self) -> None:
        """Compile every block; each shape that it meets is compiled once."""
        # Blocks of one class share one cache, with an entry for each width, of which torch allows few by default.
        torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 256)
        for block in [self.stem, *self.levels, *self.middle, self.out]:
            block.compile(dynamic=False)

    def run_all(self, blocks: Iterable[nn.Module], x: Tensor, cache: FeatureCache | None) -> Tensor:
        """:meth:`run` one block after another."""
        for block in blocks:
            x = self.run(block, x, cache)
        return x


def middle(channels: int, attention: bool) -> nn.ModuleList:
    """Blocks at the latent resolution."""
    blocks = [ResidualBlock(channels), ResidualBlock(channels)]
    if attention:
        blocks.insert(1, FrameAttention(channels))
    return nn.ModuleList(blocks)


class Encoder(_Coder):
    """Video to posterior moments.

    Args:
        widths: Channels at each level, from full resolution to latents; one more than there are stages.
        num_blocks: Residual blocks at each level.
        strides: (time, space) stride of each stage.
        patch_size: Side of the squares of pixels that the stem folds into channels; 1 for none.
        latent_channels: Channels of the latents; the output has twice as many (mean, log-variance).
        attention: Whether the middle has attention within each frame.

    Attributes:
        unit: Pixels, in height and in width, for each place of the features between high and low levels.
        halo: How many such places beside a tile its features depend on.
        high_time: Frames that become one in the high levels.
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
        # Start with a standard deviation of 0.05, so that early decoding is not drowned in noise (ours).
        nn.init.constant_(self.out.bias[latent_channels:], -6.0)
        self._set_tiling(strides)

    def _set_tiling(self, strides: Strides) -> None:
        stages = [i for i, block in enumerate(self.levels) if isinstance(block, Downsample)][: self.TILED_STAGES]
        self.split = stages[-1] + 1 if stages else 0
        reach = 0  # in places of the resolution at hand, from the low one up
        for block in reversed(self.levels[: self.split]):
            reach = reach * block.space + 1 if isinstance(block, Downsample) else reach + 2
        self.high_time, unit = (math.prod(factors) for factors in zip(*strides[: len(stages)], strict=True))
        self.unit, self.halo = self.patch_size * unit, math.ceil((reach + 1) / unit)

    def forward(self, video: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """``(N, 3, T, H, W)`` to ``(N, 2 C, t, h, w)``; with ``cache`` one chunk of a video."""
        return self.low_levels(self.high_levels(video, cache), cache)

    def high_levels(self, video: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Video to features of the resolution below which it is not tiled: one place for ``unit`` x ``unit`` pixels."""
        p = self.patch_size
        x = rearrange(video, 'n c t (h p) (w q) -> n (c p q) t h w', p=p, q=p) if p > 1 else video
        return self.run_all(self.levels[: self.split], self.stem(x, cache), cache)

    def low_levels(self, features: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """The rest: features to moments."""
        x = self.run_all([*self.levels[self.split :], *self.middle], features, cache)
        return self.out(x, cache, self.norm)


class Decoder(_Coder):
    """Latents to video; the mirror of :class:`Encoder`, same arguments.

    Attributes:
        temporal_reach: How many latent frames back an output frame can see. A constant padding token says nothing of
            *when* it stands: that, too, reaches the decoder only from the observed latents, through this reach.
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
        reach = 1  # in places of the resolution at hand, from full resolution down
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
        """``(N, C, t, h, w)`` to ``(N, 3, T, H, W)``; with ``cache`` one chunk of a video."""
        return self.high_levels(self.low_levels(latents, cache), cache)

    def low_levels(self, latents: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """Latents to features of the resolution above which they may be tiled: one place for ``unit ** 2`` pixels."""
        return self.run_all([*self.middle, *self.levels[: self.split]], self.stem(latents, cache), cache)

    def high_levels(self, features: Tensor, cache: FeatureCache | None = None) -> Tensor:
        """The rest: features to video."""
        x = self.out(self.run_all(self.levels[self.split :], features, cache), cache, self.norm)
        p = self.patch_size
        return rearrange(x, 'n (c p q) t h w -> n c t (h p) (w q)', p=p, q=p) if p > 1 else x

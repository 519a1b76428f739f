"""Encoder and decoder of the causal convolutional VAE (paper, network section; widths and depths are ours)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .layers import CausalConv3d, ChannelRMSNorm, Downsample, FrameAttention, ResidualBlock, Upsample
from .memory import Memory

Strides = Sequence[tuple[int, int]]


class _Coder(nn.Module):
    """What both directions share: running blocks, checkpointed or not."""

    gradient_checkpointing = False

    def run(self, block: Callable[..., Tensor], x: Tensor, memory: Memory | None) -> Tensor:
        """Apply ``block``, recomputing its activations in the backward pass if asked to."""
        if self.gradient_checkpointing and self.training and x.requires_grad and memory is None:
            # Re-entrant checkpointing cannot serve torch.autograd.grad, which the adaptive GAN weight uses.
            return checkpoint(block, x, use_reentrant=False)
        return block(x, memory)


def middle(channels: int, attention: bool) -> nn.ModuleList:
    """Blocks at the latent resolution."""
    blocks = [ResidualBlock(channels, channels), ResidualBlock(channels, channels)]
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
        levels: list[nn.Module] = [ResidualBlock(widths[0], widths[0]) for _ in range(num_blocks)]
        for c_in, c_out, stride in zip(widths[:-1], widths[1:], strides, strict=True):
            levels.append(Downsample(c_in, c_out, stride))
            levels.extend(ResidualBlock(c_out, c_out) for _ in range(num_blocks))
        self.levels = nn.ModuleList(levels)
        self.middle = middle(widths[-1], attention)
        self.norm = ChannelRMSNorm(widths[-1])
        self.out = CausalConv3d(widths[-1], 2 * latent_channels)
        # Start with a standard deviation of 0.05, so that early decoding is not drowned in noise (ours).
        nn.init.constant_(self.out.bias[latent_channels:], -6.0)

    def forward(self, video: Tensor, memory: Memory | None = None) -> Tensor:
        """``(N, 3, T, H, W)`` to ``(N, 2 C, t, h, w)``; with ``memory`` one chunk of a video."""
        p = self.patch_size
        x = rearrange(video, 'n c t (h p) (w q) -> n (c p q) t h w', p=p, q=p) if p > 1 else video
        x = self.stem(x, memory)
        for block in [*self.levels, *self.middle]:
            x = self.run(block, x, memory)
        return self.out(x, memory, self.norm)


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
        levels: list[nn.Module] = [ResidualBlock(widths[-1], widths[-1]) for _ in range(num_blocks)]
        for c_in, c_out, stride in zip(widths[:0:-1], widths[-2::-1], list(strides)[::-1], strict=True):
            levels.append(Upsample(c_in, c_out, stride))
            levels.extend(ResidualBlock(c_out, c_out) for _ in range(num_blocks))
        self.levels = nn.ModuleList(levels)
        self.norm = ChannelRMSNorm(widths[0])
        self.out = CausalConv3d(widths[0], 3 * patch_size**2)
        self.temporal_reach = self._temporal_reach()

    def _temporal_reach(self) -> float:
        reach, frames_per_latent = 0.0, 1
        for block in [self.stem, *self.middle, *self.levels, self.out]:
            convs = [m for m in block.modules() if isinstance(m, CausalConv3d)]
            reach += sum(conv.kernel_size[0] - 1 for conv in convs) / frames_per_latent
            if isinstance(block, Upsample) and block.time_conv is not None:
                frames_per_latent *= 2
        return reach

    def forward(self, latents: Tensor, memory: Memory | None = None) -> Tensor:
        """``(N, C, t, h, w)`` to ``(N, 3, T, H, W)``; with ``memory`` one chunk of a video."""
        x = self.stem(latents, memory)
        for block in [*self.middle, *self.levels]:
            x = self.run(block, x, memory)
        x = self.out(x, memory, self.norm)
        p = self.patch_size
        return rearrange(x, 'n (c p q) t h w -> n c t (h p) (w q)', p=p, q=p) if p > 1 else x

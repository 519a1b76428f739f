"""Discriminator over space-time patches (ours; the paper does not describe its own)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pvvae_plugin.registry import MODELS


@MODELS.register_module()
class PatchDiscriminator3D(nn.Module):
    """3D PatchGAN discriminator (Isola et al., 2017) with spectral norm.

    Unlike batch norm, spectral norm depends on the weights only, so several processes agree with one. Each stage
    halves space; the first two also halve time. One-frame clips are supported: their temporal taps see padding.

    Args:
        base_width: Channels after the first convolution, doubled at each stage up to a factor of 8.
        num_stages: Stages that halve height and width.

    Example:
        >>> from pvvae_plugin.registry import MODELS
        >>> discriminator = MODELS.build(dict(type='PatchDiscriminator3D', base_width=8, num_stages=2))
        >>> discriminator(torch.rand(2, 3, 9, 32, 32)).shape  # one logit per patch
        torch.Size([2, 1, 3, 8, 8])
    """

    def __init__(self, base_width: int = 64, num_stages: int = 3) -> None:
        super().__init__()
        widths = [3] + [base_width * min(2**i, 8) for i in range(num_stages + 1)]
        layers = []
        for i, (c_in, c_out) in enumerate(zip(widths[:-2], widths[1:-1], strict=True)):
            stride = (2 if i < 2 else 1, 2, 2)
            layers.append(spectral_norm(nn.Conv3d(c_in, c_out, (3, 4, 4), stride, padding=1)))
        layers.append(spectral_norm(nn.Conv3d(widths[-2], widths[-1], 3, padding=1)))
        layers.append(spectral_norm(nn.Conv3d(widths[-1], 1, 3, padding=1)))
        self.layers = nn.ModuleList(layers)

    def forward(self, video: Tensor) -> Tensor:
        """Map videos ``(N, 3, T, H, W)`` in [-1, 1] to logits ``(N, 1, T', H', W')``; above 0 means real."""
        x = video
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x)

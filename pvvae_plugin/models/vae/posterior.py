"""The diagonal Gaussian that an encoder predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pvvae_plugin.functional.keyed_random import randn_like
from pvvae_plugin.temporal import observed_counts, observed_mask


@dataclass(frozen=True)
class DiagonalGaussian:
    """A diagonal Gaussian over latents, in the raw (not normalised) scale of its VAE.

    Attributes:
        mean: ``(N, C, t, h, w)``.
        logvar: ``(N, C, t, h, w)``, the logarithm of the variance.
    """

    mean: Tensor
    logvar: Tensor

    def sample(
        self,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        num_groups: int | None = None,
    ) -> Tensor:
        """A reparametrised draw ``(N, C, t, h, w)``.

        Args:
            generator: One for the batch, or one for each clip, as in :func:`randn_like`.
            num_groups: Draw noise for this many latent frames and use the first ``t``. A clip's noise then does not
                depend on how long a prefix its batch happened to encode.
        """
        n, c, t, h, w = self.mean.shape
        noise = randn_like(self.mean.new_empty(n, c, num_groups or t, h, w), generator)[:, :, :t]
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def mode(self) -> Tensor:
        """The most likely latents ``(N, C, t, h, w)``."""
        return self.mean

    def kl(self, num_observed_groups: int | Tensor | None = None) -> Tensor:
        """KL divergence from the standard normal, a scalar.

        Averaged over the elements of each clip's observed latent frames, then over clips: each clip weighs the same
        whatever was dropped, so that the mean over processes is the mean over all clips.

        Args:
            num_observed_groups: Observed latent frames of each clip, int or LongTensor ``(N,)``; None for all.
        """
        n, _, t = self.mean.shape[:3]
        precise = torch.promote_types(self.mean.dtype, torch.float32)  # not in bfloat16, under autocast
        mean, logvar = self.mean.to(precise), self.logvar.to(precise)
        elements = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
        frames = elements.mean(dim=(1, 3, 4))  # (N, t)
        mask = observed_mask(observed_counts(num_observed_groups, n, t), t, frames.device)
        frames = torch.where(mask, frames, 0.0)
        return (frames.sum(dim=1) / mask.sum(dim=1)).mean()

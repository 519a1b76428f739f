"""The diagonal Gaussian that an encoder predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pvvae_plugin.functional.conversion import at_least_float32
from pvvae_plugin.functional.keyed_random import randn_like
from pvvae_plugin.renaming import renamed_arguments
from pvvae_plugin.temporal import Observed, ObservedGroups


@dataclass(frozen=True)
class DiagonalGaussian:
    """Diagonal Gaussian over raw (not normalized) latents.

    Attributes:
        mean: ``(N, C, t, h, w)``.
        logvar: Log-variance, ``(N, C, t, h, w)``.

    Example:
        >>> from pvvae_plugin.models import DiagonalGaussian
        >>> posterior = DiagonalGaussian(mean=torch.ones(1, 4, 3, 2, 2), logvar=torch.zeros(1, 4, 3, 2, 2))
        >>> posterior.sample().shape, torch.equal(posterior.mode(), posterior.mean)
        (torch.Size([1, 4, 3, 2, 2]), True)
        >>> posterior.kl()  # (mean^2 + var - 1 - logvar) / 2
        tensor(0.5000)
    """

    mean: Tensor
    logvar: Tensor

    @renamed_arguments(generator='rng')
    def sample(
        self,
        rng: torch.Generator | Sequence[torch.Generator] | None = None,
        num_groups: int | None = None,
    ) -> Tensor:
        """Draw a reparametrised sample ``(N, C, t, h, w)``.

        Args:
            rng: One generator for the batch, or one per clip, as in :func:`randn_like`.
            num_groups: Draw noise for this many latent frames and use the first ``t``. The noise of a clip then does
                not depend on the length of the encoded prefix.

        Example:
            >>> from pvvae_plugin.models import DiagonalGaussian
            >>> posterior = DiagonalGaussian(mean=torch.zeros(1, 4, 3, 2, 2), logvar=torch.zeros(1, 4, 3, 2, 2))
            >>> a, b = (posterior.sample(torch.Generator().manual_seed(0)) for _ in range(2))
            >>> torch.equal(a, b)
            True
        """
        n, c, t, h, w = self.mean.shape
        noise = randn_like(self.mean.new_empty(n, c, num_groups or t, h, w), rng)[:, :, :t]
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def mode(self) -> Tensor:
        """Return the most likely latents ``(N, C, t, h, w)``."""
        return self.mean

    @renamed_arguments(num_observed_groups='observed')
    def kl(self, observed: Observed = None) -> Tensor:
        """Return the KL divergence from the standard normal, a scalar.

        The divergence is averaged over the observed latent frames within a clip, then over clips. All clips have equal
        weight, so the mean over processes equals the mean over all clips.

        Args:
            observed: Latent frames to include, see :meth:`ObservedGroups.of`; all if None. It may have more groups
                than there are latents if the extra groups are dropped.

        Example:
            >>> from pvvae_plugin.models import DiagonalGaussian
            >>> mean = torch.tensor([1.0, 1.0, 3.0]).view(1, 1, 3, 1, 1).expand(1, 4, 3, 2, 2)
            >>> posterior = DiagonalGaussian(mean, logvar=torch.zeros_like(mean))
            >>> posterior.kl(observed=2), posterior.kl(observed=[[False, False, True]])  # of single latent frames
            (tensor(0.5000), tensor(4.5000))
        """
        n, _, t = self.mean.shape[:3]
        mean, logvar = at_least_float32(self.mean), at_least_float32(self.logvar)
        elements = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
        frames = elements.mean(dim=(1, 3, 4))  # (N, t)
        mask = ObservedGroups.of(observed, n, t, frames.device).mask[:, :t]
        frames = torch.where(mask, frames, 0.0)
        return (frames.sum(dim=1) / mask.sum(dim=1)).mean()

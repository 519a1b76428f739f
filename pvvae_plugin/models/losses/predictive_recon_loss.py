"""Objective of a predictive VAE without the adversarial term (paper, section on losses)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from pvvae_plugin.functional.conversion import at_least_float32
from pvvae_plugin.registry import MODELS

from ..vae import PredictiveOutput


def frame_difference_loss(reconstruction: Tensor, video: Tensor) -> Tensor:
    """Return the mean squared error between differences of adjacent frames, the motion-aware term.

    The paper does not state the norm. Ours is squared, like the reconstruction term.

    Args:
        reconstruction: ``(N, 3, T, H, W)``.
        video: ``(N, 3, T, H, W)``.

    Returns:
        Scalar; 0 for one-frame clips.

    Example:
        >>> from pvvae_plugin.models.losses import frame_difference_loss
        >>> video = torch.linspace(-1, 1, 5).view(1, 1, 5, 1, 1).expand(1, 3, 5, 8, 8)  # brightens by 0.5 per frame
        >>> frame_difference_loss(video + 1.0, video)  # a constant error is not a motion error
        tensor(0.)
        >>> frame_difference_loss(torch.zeros_like(video), video)
        tensor(0.2500)
    """
    error = reconstruction - video  # the difference of differences is the difference of errors
    if error.shape[2] == 1:
        return error.sum() * 0.0
    return (error[:, :, 1:] - error[:, :, :-1]).square().mean()


@MODELS.register_module()
class PredictiveReconLoss(nn.Module):
    """Loss ``rec * (MSE + diff * Diff) + lpips * LPIPS + kl * KL`` over observed and dropped frames.

    The paper gives no weights; the defaults are ours. KL 1e-6 and LPIPS 1 follow related work. Related work weights
    absolute errors by 1; squared errors of pixels in [-1, 1] are about ten times smaller, so ``rec_weight`` is 10.

    Args:
        rec_weight: Common weight of MSE and the difference term.
        diff_weight: Weight of the difference term relative to MSE; 0 disables it (an ablation in the paper).
        lpips_weight: Weight of LPIPS; 0 disables it.
        kl_weight: Weight of the KL divergence averaged over latent elements.
        lpips: Config of the :class:`LPIPS` module; required if ``lpips_weight`` is not 0.

    Example:
        >>> from pvvae_plugin.models import DiagonalGaussian, PredictiveOutput
        >>> from pvvae_plugin.registry import MODELS
        >>> from pvvae_plugin.temporal import ObservedGroups
        >>> loss = MODELS.build(dict(type='PredictiveReconLoss', rec_weight=10.0, kl_weight=0.0))
        >>> video, latents = torch.zeros(1, 3, 9, 32, 32), torch.zeros(1, 4, 3, 2, 2)
        >>> observed = ObservedGroups.of(1, batch_size=1, num_groups=3)
        >>> terms = loss(PredictiveOutput(video + 0.1, DiagonalGaussian(latents, latents), observed), video)
        >>> {name: round(terms[name].item(), 4) for name in ('loss_mse', 'loss_diff', 'mse_observed', 'mse_predicted')}
        {'loss_mse': 0.1, 'loss_diff': 0.0, 'mse_observed': 0.01, 'mse_predicted': 0.01}
    """

    def __init__(
        self,
        rec_weight: float = 10.0,
        diff_weight: float = 1.0,
        lpips_weight: float = 0.0,
        kl_weight: float = 1e-6,
        lpips: dict | None = None,
    ) -> None:
        super().__init__()
        weights = {'rec': rec_weight, 'diff': diff_weight, 'lpips': lpips_weight, 'kl': kl_weight}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f'{name}_weight must be a number of at least 0, got {weight}')
        if lpips_weight and lpips is None:
            raise ValueError(
                f"lpips_weight is {lpips_weight}, but lpips is not set: set lpips=dict(type='LPIPS', net='vgg'), "
                'or lpips_weight=0 to disable LPIPS'
            )
        self.rec_weight = rec_weight
        self.diff_weight = diff_weight
        self.lpips_weight = lpips_weight
        self.kl_weight = kl_weight
        self.lpips = MODELS.build(lpips) if lpips_weight else None

    def check_clip(self, shape: Sequence[int]) -> None:
        """Check before training that clips of shape ``(3, T, H, W)`` can be compared.

        Raises:
            ValueError: If frames are too small for LPIPS.
        """
        if hasattr(self.lpips, 'check_clip'):
            self.lpips.check_clip(shape)

    def forward(self, output: PredictiveOutput, video: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms. Keys with ``loss`` add up to the objective; the others are only logged.

        Args:
            output: Output of the VAE.
            video: The whole clip ``(N, 3, T, H, W)`` in [-1, 1].
        """
        if output.reconstruction.shape != video.shape:
            raise ValueError(
                f'reconstruction and video differ in shape: {tuple(output.reconstruction.shape)}, {tuple(video.shape)}'
            )
        reconstruction = at_least_float32(output.reconstruction)
        video = video.to(reconstruction.dtype)
        squared = (reconstruction - video).square()
        terms = {'loss_mse': self.rec_weight * squared.mean()}
        if self.diff_weight:
            diff = frame_difference_loss(reconstruction, video)
            terms['loss_diff'] = self.rec_weight * self.diff_weight * diff
        if self.lpips is not None:
            terms['loss_lpips'] = self.lpips_weight * self.lpips(reconstruction, video).mean()
        kl = output.posterior.kl(output.observed)
        terms['loss_kl'] = self.kl_weight * kl
        terms['kl'] = kl.detach()
        terms.update(_split_by_observed(squared.detach(), output))
        return terms


def _split_by_observed(squared: Tensor, output: PredictiveOutput) -> dict[str, Tensor]:
    """Return the mean squared error of observed frames and of predicted frames (if any), for the log."""
    frames = squared.mean(dim=(1, 3, 4))  # (N, T)
    observed = output.observed.frame_mask(frames.shape[1])  # (N, T)
    parts = {'mse_observed': (frames * observed).sum() / observed.sum()}
    if not output.observed.is_all:
        parts['mse_predicted'] = (frames * ~observed).sum() / (~observed).sum()
    return parts

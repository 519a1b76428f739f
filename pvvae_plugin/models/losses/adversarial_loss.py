"""Adversarial term of the objective. The paper states only when it starts; the form is ours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor, nn

from pvvae_plugin.functional.conversion import at_least_float32
from pvvae_plugin.registry import MODELS


@MODELS.register_module()
class AdversarialLoss(nn.Module):
    """Hinge GAN loss with the adaptive weight of VQGAN (Esser et al., 2021).

    Args:
        weight: Weight of the VAE's term, applied after the adaptive factor.
        start_iter: First iteration with adversarial training. Nothing adversarial is computed before it.
            Paper: 5,000 in predictive training, 0 in decoder fine-tuning.

    Example:
        >>> from pvvae_plugin.registry import MODELS
        >>> adversarial = MODELS.build(dict(type='AdversarialLoss', weight=0.3, start_iter=5000))
        >>> terms = adversarial.discriminator_loss(real_logits=torch.ones(4), fake_logits=-torch.ones(4))
        >>> terms['loss_disc'], terms['disc_accuracy']  # always right, with a margin of 1
        (tensor(0.), tensor(1.))
    """

    def __init__(self, weight: float = 0.3, start_iter: int = 5000) -> None:
        super().__init__()
        if weight < 0 or start_iter < 0:
            raise ValueError(f'weight and start_iter must not be negative, got {weight} and {start_iter}')
        self.weight = weight
        self.start_iter = start_iter

    @staticmethod
    def vae_loss(fake_logits: Tensor) -> Tensor:
        """Return the VAE's term before weighting: minus the mean logit of the reconstructions.

        Args:
            fake_logits: Discriminator logits of the reconstructions, any shape.

        Example:
            >>> from pvvae_plugin.models import AdversarialLoss
            >>> AdversarialLoss.vae_loss(fake_logits=torch.tensor([2.0, 4.0]))
            tensor(-3.)
        """
        return -at_least_float32(fake_logits).mean()

    @staticmethod
    def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> dict[str, Tensor]:
        """Return the hinge loss of the discriminator, with its mean logits and accuracy for the log."""
        real, fake = at_least_float32(real_logits), at_least_float32(fake_logits)
        loss = 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())
        with torch.no_grad():
            accuracy = 0.5 * ((real > 0).to(loss.dtype).mean() + (fake < 0).to(loss.dtype).mean())
        return {
            'loss_disc': loss,
            'logits_real': real.detach().mean(),
            'logits_fake': fake.detach().mean(),
            'disc_accuracy': accuracy,
        }


def adaptive_weight(reconstruction: Tensor, rec_gradient: Tensor, gan_gradient: Tensor, last_layer: Tensor) -> Tensor:
    """Return the ratio of the gradient norms at ``last_layer``, detached and clamped to [0, 1e4].

    Gradients are averaged over processes first. All processes get the same weight, equal to that of a single process
    with the whole batch.

    Args:
        reconstruction: Output of the VAE, still attached to its graph.
        rec_gradient: Gradient of the reconstruction loss with respect to ``reconstruction``.
        gan_gradient: The same of the adversarial loss.
        last_layer: Parameter at which the gradients are compared.

    Example:
        >>> from pvvae_plugin.models.losses import adaptive_weight
        >>> weight = torch.ones(1, requires_grad=True)
        >>> factor = adaptive_weight(2 * weight, torch.tensor([6.0]), torch.tensor([2.0]), last_layer=weight)
        >>> round(factor.item(), 2)
        3.0
    """
    norms = []
    for gradient in (rec_gradient, gan_gradient):
        (at_layer,) = torch.autograd.grad(reconstruction, last_layer, gradient, retain_graph=True)
        dist.all_reduce(at_layer, op='mean')
        norms.append(at_layer.norm())
    return (norms[0] / (norms[1] + 1e-4)).clamp(0.0, 1e4).detach()

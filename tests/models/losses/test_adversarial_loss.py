from __future__ import annotations

import pytest
import torch

from pvvae_plugin.models.losses import adaptive_weight
from pvvae_plugin.registry import MODELS


def test_hinge_against_scalars():
    loss = MODELS.build({'type': 'AdversarialLoss'})
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 0.25])
    terms = loss.discriminator_loss(real, fake)
    expected = 0.5 * ((0 + 0.5 + 2.0) / 3 + (0 + 1.0 + 1.25) / 3)
    assert terms['loss_disc'].item() == pytest.approx(expected)
    assert terms['logits_real'].item() == pytest.approx(0.5)


def test_adaptive_weight_makes_the_gradients_equally_long():
    layer = torch.nn.Linear(4, 4)
    h = layer(torch.randn(8, 4))
    rec, gan = h.square().mean(), 1e-2 * h.sum()
    rec_pixels, gan_pixels = (torch.autograd.grad(loss, h, retain_graph=True)[0] for loss in (rec, gan))
    factor = adaptive_weight(h, rec_pixels, gan_pixels, layer.weight)
    rec_grad = torch.autograd.grad(rec, layer.weight, retain_graph=True)[0]
    gan_grad = torch.autograd.grad(factor * gan, layer.weight)[0]
    assert gan_grad.norm().item() == pytest.approx(rec_grad.norm().item(), rel=1e-2)
    assert not factor.requires_grad


def test_discriminator_takes_clips_and_images():
    net = MODELS.build({'type': 'PatchDiscriminator3D', 'base_width': 8})
    assert net(torch.rand(2, 3, 9, 32, 32)).shape[:2] == (2, 1)
    assert net(torch.rand(2, 3, 1, 32, 32)).shape[2] == 1


def test_discriminator_verdict_on_a_clip_does_not_depend_on_its_batch():
    """With batch statistics, several processes would differ from one."""
    net = MODELS.build({'type': 'PatchDiscriminator3D', 'base_width': 8}).eval()
    video = torch.rand(3, 3, 5, 32, 32)
    torch.testing.assert_close(net(video)[:1], net(video[:1]))

"""Training and sampling together: a generator trained on latents of a known distribution, compared with it.

The latents of each class are Gaussian. The velocity of a perfect network is therefore known in closed form for every
class, for no class, and for any guidance. An independent solver in this file integrates it to get the expected samples.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from pvvae_plugin.functional import rectified_flow as flow
from pvvae_plugin.models import DiagonalGaussian, LatentVideoGenerator
from pvvae_plugin.registry import MODELS
from pvvae_plugin.structures import VideoDataSample

CHANNELS, FRAMES = 3, 2
DIM = CHANNELS * FRAMES  # latents (3, 2, 1, 1)
PROPORTIONS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
CLASSES = len(PROPORTIONS)
# Scale and offset of raw latents per channel, small enough that videos are never clamped to [-1, 1].
SHIFT = torch.tensor([0.1, -0.05, 0.0])
SCALE = torch.tensor([0.1, 0.15, 0.12])

# How far moments of samples may lie from the exact flow's: 4.5 standard errors of an estimate from so many samples
# (about 1e-5 of all estimates lie farther), and what half a minute of training leaves, in standard deviations.
STANDARD_ERRORS = 4.5
TRAINING_SLACK = 0.1


class IdentityVAE(nn.Module):
    """VAE whose latents are the video."""

    latent_channels, temporal_ratio, spatial_ratio = CHANNELS, 1, 1

    def __init__(self):
        super().__init__()
        self.register_buffer('latent_mean', SHIFT)
        self.register_buffer('latent_std', SCALE)

    def check_video(self, video):
        return video.shape[2]

    def encode(self, video):
        return DiagonalGaussian(video, torch.full_like(video, -30.0))

    def decode(self, latents):
        return latents

    def normalize_latents(self, latents):
        return (latents - self.latent_mean.view(1, -1, 1, 1, 1)) / self.latent_std.view(1, -1, 1, 1, 1)

    def denormalize_latents(self, latents):
        return latents * self.latent_std.view(1, -1, 1, 1, 1) + self.latent_mean.view(1, -1, 1, 1, 1)


class Mixture:
    """Mixture of normalized latents ``(N, 6)``: one anisotropic Gaussian per class."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.means = normal(CLASSES, DIM)
        turns = torch.linalg.qr(normal(CLASSES, DIM, DIM)).Q
        deviations = torch.linspace(0.3, 0.9, DIM, dtype=torch.float64)
        self.roots = turns * deviations  # (K, 6, 6), covariance = root @ root.T
        self.covariances = self.roots @ self.roots.mT

    def draw(self, n):
        """Draw latents and labels."""
        labels = torch.multinomial(PROPORTIONS, n, replacement=True)
        noise = torch.randn(n, DIM, 1, dtype=torch.float64)
        return self.means[labels] + (self.roots[labels] @ noise)[..., 0], labels

    def _component(self, x, t, k):
        """Return the velocity E[data - noise | x_t = x] within class ``k`` and its log weight at ``x``."""
        eye, offset = torch.eye(DIM, dtype=torch.float64), x - t * self.means[k]
        variance = (1 - t) ** 2 * eye + t**2 * self.covariances[k]
        solved = offset @ torch.linalg.inv(variance)
        velocity = self.means[k] + solved @ (t * self.covariances[k] - (1 - t) * eye)
        return velocity, PROPORTIONS[k].log() - 0.5 * torch.logdet(variance) - 0.5 * (offset * solved).sum(1)

    def velocity(self, x, t, label, guidance):
        if guidance == 1:
            return self._component(x, t, label)[0]
        velocities, weights = zip(*(self._component(x, t, k) for k in range(CLASSES)), strict=True)
        mixed = (torch.stack(weights, 1).softmax(1)[..., None] * torch.stack(velocities, 1)).sum(1)
        return mixed + guidance * (velocities[label] - mixed)

    def follow(self, n, label, guidance, solver, steps):
        """Integrate ``n`` noise samples with the exact velocity."""
        x = torch.randn(n, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        num_edges = steps + 1 if solver == 'euler' else steps // 2 + 1
        for start, end in pairwise(torch.linspace(0, 1, num_edges, dtype=torch.float64).tolist()):
            slope = self.velocity(x, start, label, guidance)
            if solver == 'heun':
                slope = (slope + self.velocity(x + (end - start) * slope, end, label, guidance)) / 2
            x = x + (end - start) * slope
        return x

    def classify(self, x):
        """Return the most likely class per sample, ``(N,)``."""
        return torch.stack([self._component(x, 1.0, k)[1] for k in range(CLASSES)], 1).argmax(1)


MIXTURE = Mixture()


def train(num_steps, schedule):
    """Train a LatentDiT with the algorithm's loss on cached moments of the mixture, with a learning rate schedule."""
    torch.manual_seed(0)
    head = {'type': 'LatentDiT', 'latent_channels': CHANNELS, 'num_classes': CLASSES}
    model = MODELS.build(
        {
            'type': LatentVideoGenerator,
            'backbone': {'type': IdentityVAE},
            'backbone_checkpoint': None,
            'head': {**head, 'depth': 2, 'hidden_size': 64, 'num_heads': 4},
            'class_dropout': 0.2,
        }
    )
    model.train()
    samples = [VideoDataSample(metainfo={'label': label}) for label in range(CLASSES)]
    optimizer = torch.optim.AdamW(model.head.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(num_steps):
        optimizer.param_groups[0]['lr'] = schedule(step)
        latents, labels = MIXTURE.draw(256)
        raw = latents.float().view(-1, CHANNELS, FRAMES, 1, 1) * SCALE.view(-1, 1, 1, 1) + SHIFT.view(-1, 1, 1, 1)
        moments = torch.cat([raw, torch.full_like(raw, -30.0)], dim=1)
        loss = model(moments, [samples[label] for label in labels], mode='loss')['loss_flow']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def trained(one_thread):
    with DefaultScope.overwrite_default_scope('pvvae_plugin'):
        return train(600, lambda step: 4e-3 * min(1, (step + 1) / 50) * (1 - step / 600))


def generate(model, label, n, **options):
    """Generate normalized latents ``(n, 6)``."""
    made = dict(model.generate(n, FRAMES, (1, 1), labels=[label] * n, batch_size=n, **options))
    raw = torch.stack([made[i] for i in range(n)])
    assert raw.abs().max() < 1
    return ((raw - SHIFT.view(-1, 1, 1, 1)) / SCALE.view(-1, 1, 1, 1)).flatten(1).double()


def excess(samples, reference, slack=TRAINING_SLACK):
    """Return the largest error of a mean or covariance of ``samples``, relative to the tolerance."""
    n = len(samples)
    mean, covariance = reference.mean(0), reference.T.cov()
    variances = covariance.diagonal()
    sizes = variances.outer(variances).sqrt()
    of_mean = STANDARD_ERRORS * (variances / n).sqrt() + slack * variances.sqrt()
    of_covariance = STANDARD_ERRORS * ((sizes**2 + covariance**2) / n).sqrt() + slack * sizes
    mean_error = ((samples.mean(0) - mean).abs() / of_mean).max()
    return max(mean_error, ((samples.T.cov() - covariance).abs() / of_covariance).max()).item()


def shares(samples):
    return MIXTURE.classify(samples).bincount(minlength=CLASSES) / len(samples)


def excess_of_classes(model, n=1000, guidance=1.0, solver='euler', steps=8):
    """Errors of class-conditional samples. Guidance amplifies the remaining training error."""
    worst = 0.0
    for label in range(CLASSES):
        exact = MIXTURE.follow(20000, label, guidance, solver, steps)
        samples = generate(
            model,
            label,
            n,
            guidance_scale=guidance,
            solver=solver,
            num_inference_steps=steps // flow.SOLVERS[solver].calls_per_step,
        )
        worst = max(worst, excess(samples, exact, TRAINING_SLACK * guidance))
    return worst


def excess_of_mixture(model, n=1500, steps=16):
    """Errors of unconditional samples: moments and class proportions."""
    exact, samples = (
        MIXTURE.follow(20000, 0, 0.0, 'euler', steps),
        generate(model, 0, n, guidance_scale=0.0, num_inference_steps=steps),
    )
    allowed = STANDARD_ERRORS * (PROPORTIONS * (1 - PROPORTIONS) / n).sqrt() + 0.3 * TRAINING_SLACK
    return max(excess(samples, exact), ((shares(samples) - shares(exact)).abs() / allowed).max().item())


def test_the_exact_flow_leads_to_the_mixture():
    """With 20,000 draws, the standard error is 0.007 deviations for a mean and at most 0.01 for a covariance."""
    for label in range(CLASSES):
        samples = MIXTURE.follow(20000, label, 1.0, 'heun', 50)
        sizes = MIXTURE.covariances[label].diagonal().sqrt()
        assert ((samples.mean(0) - MIXTURE.means[label]).abs() < 0.03 * sizes).all()
        assert ((samples.T.cov() - MIXTURE.covariances[label]).abs() < 0.04 * sizes.outer(sizes)).all()
        assert shares(samples)[label] > 0.9
    assert (shares(MIXTURE.follow(20000, 0, 0.0, 'heun', 50)) - shares(MIXTURE.draw(20000)[0])).abs().max() < 0.02


@pytest.mark.parametrize(('solver', 'steps'), [('euler', 8), ('heun', 20)])
def test_samples_of_a_class_have_its_mean_and_covariance(trained, solver, steps):
    assert excess_of_classes(trained, solver=solver, steps=steps) < 1


def test_samples_of_no_class_are_the_whole_mixture(trained):
    assert excess_of_mixture(trained) < 1


def test_guidance_moves_classes_apart_as_the_exact_flow_says(trained):
    assert excess_of_classes(trained, guidance=2.0, steps=12) < 1
    plain, guided = (
        torch.stack(
            [
                generate(trained, label, 300, guidance_scale=scale, num_inference_steps=12).mean(0)
                for label in range(CLASSES)
            ]
        )
        for scale in (1.0, 2.0)
    )
    assert (torch.pdist(guided) > 1.1 * torch.pdist(plain)).all()


def flip_the_velocity(model, monkeypatch):
    for parameter in model.head.final.out.parameters():
        parameter.data.neg_()


def leave_out_the_last_step(model, monkeypatch):
    grid = flow.time_grid
    monkeypatch.setattr(flow, 'time_grid', lambda *args: grid(*args)[:-1])


def turn_time_around(model, monkeypatch):
    model.head.register_forward_pre_hook(lambda module, args: (args[0], 1 - args[1], *args[2:]))


def leave_out_the_mean_of_the_latents(model, monkeypatch):
    model.backbone.latent_mean = torch.zeros(CHANNELS)


def ignore_the_label(model, monkeypatch):
    model.head.class_embedding.weight.data[:CLASSES] = model.head.class_embedding.weight.data[CLASSES]


def take_a_class_for_none(model, monkeypatch):
    model.head.class_embedding.weight.data[CLASSES] = model.head.class_embedding.weight.data[0]


def guide_the_first_channel_only(model, monkeypatch):
    guided = flow.guided_velocity

    def broken(conditional, unconditional, scale):
        velocity = conditional.clone()
        velocity[:, :1] = guided(conditional, unconditional, scale)[:, :1]
        return velocity

    monkeypatch.setattr(flow, 'guided_velocity', broken)


@pytest.mark.parametrize(
    ('broken', 'measure', 'options'),
    [
        (flip_the_velocity, excess_of_classes, {}),
        (leave_out_the_last_step, excess_of_classes, {}),
        (turn_time_around, excess_of_classes, {}),
        (leave_out_the_mean_of_the_latents, excess_of_classes, {}),
        (ignore_the_label, excess_of_classes, {}),
        (take_a_class_for_none, excess_of_mixture, {}),
        (guide_the_first_channel_only, excess_of_classes, {'guidance': 2.0, 'steps': 12}),
    ],
)
def test_each_of_these_mistakes_would_be_noticed(trained, broken, measure, options, monkeypatch):
    model = copy.deepcopy(trained)
    broken(model, monkeypatch)
    assert measure(model, n=500, **options) > 1.5


def test_a_network_trained_on_the_flipped_velocity_is_the_negated_one(monkeypatch):
    """Ensures that the first mistake above also affects training: the last layer starts at zero, all else mirrors."""
    right = train(3, lambda step: 1e-3)
    monkeypatch.setattr(flow, 'velocity_target', lambda data, noise: noise - data)
    wrong = dict(train(3, lambda step: 1e-3).head.named_parameters())
    for name, parameter in right.head.named_parameters():
        torch.testing.assert_close(wrong[name], -parameter if name.startswith('final.out') else parameter)

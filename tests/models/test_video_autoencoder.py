from __future__ import annotations

import copy

import pytest
import torch
from mmengine.logging import MessageHub

from pvvae_plugin.engine import SubmoduleOptimWrapperConstructor
from pvvae_plugin.models import PredictiveReconLoss
from pvvae_plugin.models.video_autoencoder import frozen
from pvvae_plugin.registry import MODELS
from pvvae_plugin.structures import VideoDataSample


@pytest.fixture
def algorithm_config(tiny_vae_config):
    return {
        'type': 'VideoAutoencoder',
        'backbone': tiny_vae_config,
        'loss': {'type': 'PredictiveReconLoss'},
        'discriminator': {'type': 'PatchDiscriminator3D', 'base_width': 8},
        'adversarial': {'type': 'AdversarialLoss', 'start_iter': 3},
    }


def make_batch(counts=(1, 3), frames=9, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randint(0, 256, (3, frames, size, size), generator=generator, dtype=torch.uint8) for _ in counts]
    samples = []
    for i, count in enumerate(counts):
        meta = {'draw_key': i, 'path': f'clip{i}'}
        if count is not None:
            meta['num_observed_groups'] = count
        samples.append(VideoDataSample(metainfo=meta))
    return {'inputs': inputs, 'data_samples': samples}


def make_optim(model, **options):
    entry = {'type': 'AutocastOptimWrapper', 'optimizer': {'type': 'AdamW', 'lr': 1e-3}, **options}
    return SubmoduleOptimWrapperConstructor({name: copy.deepcopy(entry) for name in model.optimized_modules})(model)


def snapshot(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def changed(module, before):
    return {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}


def test_gan_starts_when_configured_and_trains_the_discriminator_then(algorithm_config):
    model = MODELS.build(algorithm_config)
    optim = make_optim(model)
    hub = MessageHub.get_current_instance()
    for iteration in range(5):
        hub.update_info('iter', iteration)
        before = snapshot(model.discriminator)
        log = model.train_step(make_batch(), optim)
        started = iteration >= 3
        assert ('loss_gan' in log) is started
        assert ('loss_disc' in log) is started
        assert bool(changed(model.discriminator, before)) is started
        assert {'loss', 'loss_mse', 'loss_diff', 'loss_kl', 'mse_observed', 'mse_predicted'} <= set(log)


def test_generator_pass_leaves_no_gradient_in_the_discriminator(algorithm_config):
    algorithm_config['adversarial']['start_iter'] = 0
    model = MODELS.build(algorithm_config)
    optim = make_optim(model, accumulative_counts=4)  # gradients stay visible
    model.train_step(make_batch(), optim)
    with_both = {n: p.grad.clone() for n, p in model.discriminator.named_parameters()}
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in with_both.values())
    assert all(p.requires_grad for p in model.discriminator.parameters())
    model.zero_grad()
    video = model.data_preprocessor(make_batch())['inputs']
    reconstruction = model.backbone(video, torch.tensor([1, 3])).reconstruction
    with frozen(model.discriminator):
        fake = model.discriminator(reconstruction)
    fake.mean().backward()
    assert all(p.grad is None for p in model.discriminator.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.backbone.parameters())


def test_overfitting_one_clip_drives_the_loss_down(algorithm_config):
    algorithm_config.update(discriminator=None, adversarial=None)
    model = MODELS.build(algorithm_config)
    optim = make_optim(model)
    y, x = torch.meshgrid(torch.linspace(0, 255, 32), torch.linspace(0, 255, 32), indexing='ij')
    frames = torch.stack([torch.stack([(y + 20 * t) % 256, x, (x + y) / 2]) for t in range(9)], dim=1)
    batch = make_batch(counts=(2,))
    batch['inputs'] = [frames.to(torch.uint8)]
    losses = [model.train_step(copy.deepcopy(batch), optim)['loss'].item() for _ in range(120)]
    assert losses[-1] < 0.25 * losses[0]


def test_freezing_the_encoder_leaves_only_the_decoder_to_train(algorithm_config):
    algorithm_config.update(freeze_encoder=True, discriminator=None, adversarial=None)
    model = MODELS.build(algorithm_config)
    before = snapshot(model.backbone)
    model.train_step(make_batch(counts=(None, None)), make_optim(model))
    names = changed(model.backbone, before)
    assert names
    assert all(name.startswith('decoder.') for name in names)
    assert names == {name for name in before if name.startswith('decoder.')}


def test_accumulated_steps_equal_one_large_batch(algorithm_config):
    algorithm_config.update(discriminator=None, adversarial=None)
    model = MODELS.build(algorithm_config).double()
    other = copy.deepcopy(model)
    whole = make_batch(counts=(1, 3, 2, 3))
    model.train_step(whole, make_optim(model))
    optim = make_optim(other, accumulative_counts=2)
    for part in (slice(0, 2), slice(2, 4)):
        other.train_step({key: value[part] for key, value in whole.items()}, optim)
    for (name, a), (_, b) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=name)


def test_bfloat16_runs_on_this_device_and_stays_close(algorithm_config):
    algorithm_config.update(discriminator=None, adversarial=None)
    model = MODELS.build(algorithm_config)
    other = copy.deepcopy(model)
    a = model.train_step(make_batch(), make_optim(model))
    b = other.train_step(make_batch(), make_optim(other, dtype='bfloat16'))
    assert b['loss'].item() != a['loss'].item()
    assert b['loss'].item() == pytest.approx(a['loss'].item(), rel=0.02)


def test_predict_fills_in_every_number_of_observed_groups(algorithm_config):
    model = MODELS.build(algorithm_config).eval()
    batch = make_batch(counts=(None, None))
    samples = model.val_step(batch)
    video = model.data_preprocessor(make_batch(counts=(None, None)))['inputs']
    for i, sample in enumerate(samples):
        assert torch.equal(sample.video, video[i])
        assert set(sample.predictions) == {1, 2}
        for g, clip in sample.predictions.items():
            with torch.no_grad():
                expected = model.backbone.predict(video[i : i + 1, :, : 1 + 4 * (g - 1)], 9)[0]
            torch.testing.assert_close(clip, expected, rtol=0, atol=1e-5)


def test_preprocessor_scales_bytes_to_the_unit_range_and_refuses_mixed_shapes(algorithm_config):
    model = MODELS.build(algorithm_config)
    batch = make_batch()
    video = model.data_preprocessor(batch)['inputs']
    assert torch.equal(video[1], batch['inputs'][1].float() / 127.5 - 1.0)
    batch['inputs'][0] = batch['inputs'][0][:, :, :16]
    with pytest.raises(ValueError, match='differ in shape.*clip0'):
        model.data_preprocessor(batch)


def test_settings_that_contradict_each_other_are_refused(algorithm_config):
    with pytest.raises(ValueError, match='must be set together'):
        MODELS.build(dict(algorithm_config, adversarial=None))
    model = MODELS.build(algorithm_config)
    with pytest.raises(ValueError, match="trains \\['discriminator', 'vae'\\]"):
        SubmoduleOptimWrapperConstructor({'vae': {}})(model)


@pytest.mark.parametrize('patterns', [(1, 3, 2), ((True, False, True), (True, True, False), (True, True, True))])
def test_a_step_reads_nothing_back_from_the_device(algorithm_config, patterns):
    """On the meta device, ``item()``, ``tolist()`` and boolean indexing raise an error."""
    with torch.device('meta'):
        model = MODELS.build(algorithm_config)
        video = torch.empty(3, 3, 9, 32, 32)
    samples = [VideoDataSample(metainfo={'observed_groups': pattern}) for pattern in patterns]
    terms = model(video, samples, mode='loss')
    sum(value for name, value in terms.items() if name.startswith('loss')).backward()
    assert {'loss_mse', 'loss_kl', 'mse_observed', 'mse_predicted'} <= terms.keys()
    assert model.backbone.padding_token.grad.is_meta


class CountedLoss(PredictiveReconLoss):
    """Counts its backward passes, and has a term of both the pixels and the posterior."""

    def __init__(self):
        super().__init__(kl_weight=0.01)
        self.passes = 0

    def forward(self, output, video):
        def count(gradient):
            self.passes += 1

        squared = (output.reconstruction - video).square()
        squared.register_hook(count)
        return {
            **super().forward(output, video),
            'loss_both': squared.mean() * (1 + output.posterior.logvar.square().mean()),
            'only_logged': squared.mean().detach(),
        }


@pytest.mark.parametrize('freeze_encoder', [False, True])
def test_gradients_with_a_gan_are_those_of_the_sum_in_one_pass_per_network(algorithm_config, freeze_encoder):
    """Against plain autograd through the whole graph, in float64."""
    torch.manual_seed(0)
    model = MODELS.build(dict(algorithm_config, freeze_encoder=freeze_encoder)).double()
    model.adversarial.start_iter, model.loss = 0, CountedLoss()
    model.discriminator.eval()  # no power iteration: both ways see the same discriminator
    model.data_preprocessor.double()
    MessageHub.get_current_instance().update_info('iter', 0)
    data = model.data_preprocessor(make_batch())
    video, samples = data['inputs'].double(), data['data_samples']
    parameters = dict(model.backbone.named_parameters())

    losses, objective = model._adversarial_losses(model._run_backbone(video, samples), video)
    assert model.loss.passes == 1 and objective.item() == 0
    objective.backward()
    found = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    assert all(p.grad is None for p in model.discriminator.parameters())

    model.zero_grad()
    output = model._run_backbone(video, samples)
    terms = model.loss(output, video)
    gan = -model.discriminator(output.reconstruction).mean()
    rec = sum(value for name, value in terms.items() if name.startswith('loss_'))
    layer = model.backbone.last_layer
    norms = [torch.autograd.grad(loss, layer, retain_graph=True)[0].norm() for loss in (rec, gan)]
    factor = norms[0] / (norms[1] + 1e-4)
    (rec + model.adversarial.weight * factor * gan).backward()
    assert losses['gan_factor'].item() == pytest.approx(factor.item(), rel=1e-12)
    assert losses['loss_gan'].item() == pytest.approx((model.adversarial.weight * factor * gan).item(), rel=1e-12)
    assert found.keys() == {name for name, p in parameters.items() if p.grad is not None}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, parameters[name].grad, rtol=1e-9, atol=1e-12, msg=name)

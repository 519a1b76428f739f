"""Frame continuation with guidance and both solvers, compared with explicit steps; argument checks."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pvvae_plugin.functional.conversion import as_video
from pvvae_plugin.functional.keyed_random import torch_rng
from pvvae_plugin.registry import MODELS
from pvvae_plugin.structures import VideoDataSample


@pytest.fixture
def model(tiny_vae_config, monkeypatch):
    """Generator that returns scaled latents, because an untrained decoder hides them."""
    head = {'type': 'LatentDiT', 'latent_channels': 4, 'num_classes': 3, 'depth': 2, 'hidden_size': 32, 'num_heads': 2}
    config = {'type': 'LatentVideoGenerator', 'backbone': tiny_vae_config, 'backbone_checkpoint': None, 'head': head}
    model = MODELS.build({**config, 'condition_prob': 0.5}).eval()
    torch.nn.init.normal_(model.head.final.out.weight, std=0.1)  # a new head returns zeros
    for block in model.head.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.1)
    with torch.no_grad():
        latents = model.backbone.encode(torch.rand(8, 3, 5, 32, 32) * 2 - 1).mode()
    model.backbone.latent_mean.copy_(latents.mean((0, 2, 3, 4)))
    model.backbone.latent_std.copy_(latents.std((0, 2, 3, 4)))
    monkeypatch.setattr(model.backbone, 'decode', lambda latents: model.backbone.normalize_latents(latents) / 100)
    return model


@pytest.mark.parametrize('guidance', [1.0, 3.0])
@pytest.mark.parametrize('solver', ['euler', 'heun'])
@torch.no_grad()
def test_guided_continuation_is_that_of_the_written_out_steps(model, solver, guidance):
    observed = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    ((_, made),) = model.generate(
        1,
        13,
        (32, 32),
        labels=[2],
        num_inference_steps=4,
        solver=solver,
        guidance_scale=guidance,
        first_frames=observed,
    )
    clean = model.backbone.normalize_latents(model.backbone.encode(observed).mode())

    def keep(x):
        return torch.cat([clean, x[:, :, 2:]], dim=2)

    def velocity(x, time):
        times = torch.tensor([[1.0, 1.0, time, time]])
        with_class = model.head(keep(x), times, torch.tensor([2]))
        without = model.head(keep(x), times, torch.tensor([3]))
        return without + guidance * (with_class - without)

    x = torch.randn(4, 4, 2, 2, generator=torch_rng(0, 'generate', 0))[None]
    for time in (0.0, 0.25, 0.5, 0.75):
        slope = velocity(x, time)
        if solver == 'heun':
            slope = (slope + velocity(x + 0.25 * slope, time + 0.25)) / 2
        x = x + 0.25 * slope
    torch.testing.assert_close(100 * made, keep(x)[0], rtol=0, atol=1e-3)


def test_a_guidance_interval_counts_the_times_of_the_frames_that_are_made(model):
    batches = []
    model.head.register_forward_hook(lambda module, args, out: batches.append(len(args[0])))
    observed = torch.zeros(1, 3, 5, 32, 32)
    options = {
        'num_inference_steps': 4,
        'guidance_scale': 2.0,
        'guidance_interval': (0.25, 0.5),
        'first_frames': observed,
    }
    list(model.generate(1, 9, (32, 32), labels=[0], **options))
    assert batches == [1, 2, 2, 1]  # at times 0, 0.25, 0.5, 0.75; given frames are at time 1 throughout


def test_fewer_frames_to_continue_than_videos_are_used_in_turn(model):
    observed = torch.tensor([-0.9, 0.9]).view(2, 1, 1, 1, 1).expand(-1, 3, 1, 32, 32)  # a dark and a bright image
    options = {'labels': [0, 0, 0], 'num_inference_steps': 1}
    made = dict(model.generate(3, 5, (32, 32), first_frames=observed, **options))
    alone = dict(model.generate(3, 5, (32, 32), first_frames=observed[[0, 1, 0]], indices=[2], **options))
    torch.testing.assert_close(made[2], alone[2], rtol=0, atol=1e-5)
    torch.testing.assert_close(made[2][:, 0], made[0][:, 0], rtol=0, atol=1e-5)
    assert (made[1][:, 0] - made[0][:, 0]).abs().max() > 1e-3


def test_generating_in_half_precision_keeps_steps_and_given_frames_in_full(model):
    observed = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    options = {'labels': [1], 'num_inference_steps': 4, 'guidance_scale': 2.0, 'first_frames': observed}
    ((_, full),) = model.generate(1, 9, (32, 32), **options)
    dtypes = set()
    encoder = model.backbone.encoder.register_forward_hook(lambda module, args, out: dtypes.add(out.dtype))
    with torch.autocast('cpu', torch.bfloat16):
        ((_, half),) = model.generate(1, 9, (32, 32), **options)
    encoder.remove()
    assert dtypes == {torch.float32} and half.dtype == torch.float32
    assert torch.equal(half[:, :2], full[:, :2])  # given
    assert 0 < (half - full)[:, 2].abs().max() < 1e-3  # a tenth of the standard deviation of the latents


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'first_frames': torch.zeros(2, 3, 4, 32, 32)}, '4 frames does not split into groups'),
        ({'first_frames': torch.zeros(2, 3, 9, 32, 32)}, 'first_frames has 9 frames, but a video has only 9'),
        ({'first_frames': torch.zeros(2, 3, 5, 16, 32)}, '16 x 32, but the videos are 32 x 32'),
        ({'first_frames': torch.zeros(3, 3, 5, 32, 32)}, 'hold 1..2 clips for 2 videos, got 3'),
        (
            {'first_frames': torch.full((1, 3, 5, 32, 32), 255.0)},
            r'must be in \[-1, 1\], got values from 255',
        ),
        ({'num_inference_steps': 0}, 'num_inference_steps'),
        ({'shift': 0.0}, 'shift'),
        ({'shift': 1e308}, 'shift'),
        ({'guidance_scale': float('nan')}, 'guidance_scale must be within'),
        ({'guidance_interval': (0.5, 0.2)}, 'interval'),
        ({'batch_size': 0}, 'batch_size'),
        ({'size': (30, 32)}, 'height 30'),
        ({'num_frames': 8}, '8 frames'),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(model, options, message):
    options = {'num_frames': 9, 'size': (32, 32), 'labels': [0, 1], **options}
    with pytest.raises(ValueError, match=message):
        model.generate(2, **options)  # no video is requested


@pytest.mark.parametrize('scale', [0.0, 3.0])
def test_guidance_without_a_trained_null_class_is_refused(model, scale):
    options = {'num': 1, 'num_frames': 5, 'size': (32, 32), 'guidance_scale': scale}
    model.class_dropout = 0.0
    with pytest.raises(ValueError, match=f'guidance_scale={scale} .* class_dropout=0: use guidance_scale=1, or train'):
        model.generate(**options, labels=[0])
    model.generate(**{**options, 'guidance_scale': 1.0}, labels=[0])
    model.class_dropout = 0.1
    model.generate(**options, labels=[0])
    model.head.num_classes = None
    with pytest.raises(ValueError, match=f'guidance_scale={scale} .* unconditional .*: use guidance_scale=1$'):
        model.generate(**options)


def test_first_frames_from_0_to_1_are_told(model):
    options = {'num': 1, 'num_frames': 9, 'size': (32, 32), 'labels': [0]}
    with pytest.warns(UserWarning, match='first_frames has no negative value'):
        model.generate(**options, first_frames=torch.rand(1, 3, 5, 32, 32))
    bright = as_video(np.random.default_rng(0).integers(128, 256, (5, 32, 32, 3), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model.generate(**options, first_frames=bright)  # as read from a file


class Reads(TorchDispatchMode):
    """Counter of values read back from the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


class Scale(torch.nn.Module):
    """Head without argument checks."""

    latent_channels, null_label = 4, 3

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, latents, times, labels):
        return latents * self.weight


@pytest.mark.parametrize('condition_prob', [0.0, 0.5])
def test_the_loss_reads_no_value_back_from_the_device(model, condition_prob):
    model.head, model.condition_prob = Scale(), condition_prob
    samples = [VideoDataSample(metainfo={'draw_key': i, 'label': i, 'path': f'{i}'}) for i in range(3)]
    model.train()
    with Reads() as reads:
        loss = model(torch.rand(3, 3, 9, 32, 32), samples, mode='loss')['loss_flow']
        assert reads.count == 0
        loss.item()
    assert reads.count == 1


def test_a_label_that_the_head_does_not_know_is_named(model):
    samples = [VideoDataSample(metainfo={'draw_key': i, 'label': 3 * i, 'path': f'{i}.mp4'}) for i in range(2)]
    with pytest.raises(ValueError, match=r'1.mp4 has label 3, but the head needs one in 0..2'):
        model(torch.rand(2, 3, 5, 32, 32), samples, mode='loss')


def test_a_video_that_is_no_picture_is_refused(model):
    torch.nn.init.constant_(model.head.final.out.bias, float('nan'))
    with pytest.raises(FloatingPointError, match='video 0 is not finite'):
        list(model.generate(1, 5, (32, 32), labels=[0], num_inference_steps=1))

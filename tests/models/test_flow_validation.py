"""Validation losses of a generator, and the precision of its encoding."""

from __future__ import annotations

import pytest
import torch

from pvvae_plugin.datasets import SyntheticVideoDataset
from pvvae_plugin.registry import MODELS


@pytest.fixture
def model(tiny_vae_config):
    head = {'type': 'LatentDiT', 'latent_channels': 4, 'num_classes': 7, 'depth': 2, 'hidden_size': 32, 'num_heads': 2}
    model = MODELS.build(
        {'type': 'LatentVideoGenerator', 'backbone': tiny_vae_config, 'backbone_checkpoint': None, 'head': head}
    )
    torch.nn.init.normal_(model.head.final.out.weight, std=0.1)  # a new head returns zeros
    return model.eval()


@pytest.fixture
def clips():
    return SyntheticVideoDataset(length=5, clip_len=5, size=32, test_mode=True, pipeline=[{'type': 'PackClip'}])


def validate(model, clips, batch_size):
    losses = []
    for start in range(0, len(clips), batch_size):
        batch = [clips[i] for i in range(start, min(start + batch_size, len(clips)))]
        data = {key: [clip[key] for clip in batch] for key in ('inputs', 'data_samples')}
        losses += [sample.flow_losses for sample in model.val_step(data)]
    return torch.stack(losses)


def test_a_clip_meets_the_same_times_and_noise_in_every_batch_and_validation(model, clips):
    first = validate(model, clips, batch_size=5)
    torch.testing.assert_close(validate(model, clips, batch_size=2), first)
    assert first.unique().numel() == first.numel() == 20
    torch.nn.init.normal_(model.head.final.out.weight, std=0.1)
    assert not torch.isclose(validate(model, clips, batch_size=5), first).any()


@pytest.mark.parametrize('times', ['uniform', 'logit-normal'])
def test_each_part_of_the_path_is_looked_at_once(model, clips, times):
    model.times = times
    seen = []
    model.head.register_forward_hook(lambda module, args, out: seen.append(args[1]))
    validate(model, clips, batch_size=5)
    assert len(seen) == 4
    for part, of_clips in enumerate(seen):
        assert ((of_clips >= part / 4) & (of_clips < (part + 1) / 4)).all()
        assert of_clips.unique().numel() == 5


def test_the_loss_is_the_error_of_the_velocity_at_the_time_the_head_is_told(model, clips):
    """With a constant head and a noiseless posterior, the noise can be computed from the input."""
    torch.nn.init.zeros_(model.head.final.out.weight)
    torch.nn.init.normal_(model.head.final.out.bias)
    torch.nn.init.zeros_(model.backbone.encoder.out.weight[4:])
    torch.nn.init.constant_(model.backbone.encoder.out.bias[4:], -30.0)
    seen = []
    model.head.register_forward_hook(lambda module, args, out: seen.append(args))
    losses = validate(model, clips, batch_size=5)
    video = torch.stack([clips[i]['inputs'] for i in range(5)]).float() / 127.5 - 1
    data = model.backbone.encode(video).mode()
    said = model.head.final.out.bias.view(1, 4, 1, 1, 1)
    for part, (noisy, times, labels) in enumerate(seen):
        assert labels.tolist() == [0, 1, 2, 3, 4]  # no class is hidden
        t = times.view(-1, 1, 1, 1, 1)
        noise = (noisy - t * data) / (1 - t)
        expected = (said - (data - noise)).square().mean(dim=(1, 2, 3, 4))
        torch.testing.assert_close(losses[:, part], expected, rtol=1e-3, atol=0)


def test_clips_are_encoded_in_float32_under_autocast(model, clips):
    video = torch.stack([clips[i]['inputs'] for i in range(2)]).float() / 127.5 - 1
    samples = [clips[i]['data_samples'] for i in range(2)]
    latents = []
    model.head.register_forward_hook(lambda module, args, out: latents.append((args[0], out.dtype)))
    with torch.no_grad():
        model(video, samples, mode='loss')
        with torch.autocast('cpu', torch.bfloat16):
            assert model.backbone.encode(video).mean.dtype == torch.bfloat16  # the result under autocast
            model(video, samples, mode='loss')
    (plain, full), (under_autocast, half) = latents
    assert torch.equal(plain, under_autocast)
    assert (full, half) == (torch.float32, torch.bfloat16)

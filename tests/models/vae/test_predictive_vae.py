from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pvvae_plugin.models import DiagonalGaussian
from pvvae_plugin.registry import MODELS
from pvvae_plugin.temporal import ObservedGroups


def rand_video(n=2, t=17, size=32, dtype=torch.float32):
    return torch.rand(n, 3, t, size, size, dtype=dtype) * 2 - 1


def stirred(vae):
    """Set random weights, because residual blocks start as the identity and would hide errors."""
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.reset_parameters()
    return vae


@pytest.fixture(params=['plain', 'patchify'])
def vae(request, tiny_vae_config):
    if request.param == 'patchify':
        tiny_vae_config.update(patch_size=4, strides=((2, 1), (2, 2), (1, 2), (1, 1)))
    return stirred(MODELS.build(tiny_vae_config)).eval()


def test_paper_size_has_the_papers_size():
    with torch.device('meta'):
        vae = MODELS.build({'type': 'PredictiveVAE'})
        video = torch.empty(1, 3, 17, 256, 256)
    parameters = sum(p.numel() for p in vae.parameters())
    assert abs(parameters / 661e6 - 1) <= 0.05
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        latents = vae.encode(video).mode()
        assert vae.decode(latents).shape == video.shape
    assert latents.shape == (1, 64, 5, 16, 16)
    assert counter.get_total_flops() <= 16e12
    assert (vae.latent_channels, vae.temporal_ratio, vae.spatial_ratio) == (64, 4, 16)


@torch.no_grad()
def test_prefix_of_input_gives_prefix_of_output(vae):
    video = rand_video()
    posterior = vae.encode(video)
    clip = vae.decode(posterior.mode())
    for groups in range(1, 6):
        frames = 1 + 4 * (groups - 1)
        part = vae.encode(video[:, :, :frames])
        torch.testing.assert_close(part.mean, posterior.mean[:, :, :groups], rtol=0, atol=1e-5)
        torch.testing.assert_close(part.logvar, posterior.logvar[:, :, :groups], rtol=0, atol=1e-5)
        decoded = vae.decode(posterior.mode()[:, :, :groups])
        torch.testing.assert_close(decoded, clip[:, :, :frames], rtol=0, atol=1e-5)


@torch.no_grad()
def test_encoder_and_decoder_do_use_the_past(vae):
    """A network that sees only the current frame would also be causal."""
    video = rand_video(n=1)
    changed = video.clone()
    changed[:, :, 0] = -changed[:, :, 0]
    latents, other = vae.encode(video).mode(), vae.encode(changed).mode()
    assert (latents[:, :, 1:] - other[:, :, 1:]).abs().max() > 1e-4
    mixed = torch.cat([other[:, :, :1], latents[:, :, 1:]], dim=2)
    assert (vae.decode(latents)[:, :, 1:] - vae.decode(mixed)[:, :, 1:]).abs().max() > 1e-4


def test_mixed_batch_equals_each_clip_encoded_alone(tiny_vae_config):
    vae = stirred(MODELS.build(tiny_vae_config)).double()
    video = rand_video(n=5, dtype=torch.float64)
    counts = torch.tensor([1, 2, 4, 3, 2])  # the longest prefix is shorter than the clip

    def generators():
        return [torch.Generator().manual_seed(i) for i in range(5)]

    output = vae(video, counts, generators())
    for i, g in enumerate(counts.tolist()):
        alone = video[i : i + 1, :, : 1 + 4 * (g - 1)]
        posterior = vae.encode(alone)
        generator = generators()[i]
        # Noise is drawn for the whole clip, so it does not depend on the longest prefix in the batch.
        noise = torch.randn(4, 5, 2, 2, generator=generator, dtype=torch.float64)[None, :, :g]
        latents = posterior.mean + torch.exp(0.5 * posterior.logvar) * noise
        token = vae.padding_token.view(1, -1, 1, 1, 1).expand(1, 4, 5 - g, 2, 2)
        expected = vae.decode(torch.cat([latents, token], dim=2))
        torch.testing.assert_close(output.reconstruction[i : i + 1], expected, rtol=0, atol=1e-10)


def test_dropped_frames_touch_neither_outputs_nor_gradients(tiny_vae_config):
    vae = stirred(MODELS.build(tiny_vae_config))
    video = rand_video(n=3)
    counts = torch.tensor([1, 3, 4])
    other = video.clone()
    for i, g in enumerate(counts.tolist()):
        other[i, :, 1 + 4 * (g - 1) :] = torch.rand(3, 17 - (1 + 4 * (g - 1)), 32, 32) * 2 - 1
    results = []
    for clip in (video, other):
        vae.zero_grad()
        output = vae(clip, counts, [torch.Generator().manual_seed(i) for i in range(3)])
        (output.reconstruction.square().mean() + output.posterior.kl(counts)).backward()
        results.append((output.reconstruction.detach(), {n: p.grad.clone() for n, p in vae.named_parameters()}))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=0)
    for name, grad in results[0][1].items():
        torch.testing.assert_close(grad, results[1][1][name], rtol=0, atol=0, msg=name)


def test_groups_dropped_in_the_middle_touch_neither_outputs_nor_gradients(tiny_vae_config):
    vae = stirred(MODELS.build(tiny_vae_config))
    video = rand_video(n=2)
    patterns = [(True, False, True, False, True), (False, True, True, False, False)]
    observed = ObservedGroups.of(patterns, 2, 5)
    seen = observed.frame_mask(17)[:, None, :, None, None]
    other = torch.where(seen, video, torch.rand_like(video))
    results = []
    for clip in (video, other):
        vae.zero_grad()
        output = vae(clip.requires_grad_(), observed, [torch.Generator().manual_seed(i) for i in range(2)])
        (output.reconstruction.square().mean() + output.posterior.kl(observed)).backward()
        results.append((output.reconstruction.detach(), {n: p.grad.clone() for n, p in vae.named_parameters()}))
        assert (clip.grad * ~seen).abs().max() == 0 and (clip.grad * seen).abs().max() > 0
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(grad, results[1][1][name]) for name, grad in results[0][1].items())


def test_old_names_of_arguments_warn_and_mean_the_same(tiny_vae_config):
    vae = stirred(MODELS.build(tiny_vae_config)).eval()
    video = rand_video(n=1)
    with pytest.warns(FutureWarning, match="'num_observed_groups' is now 'observed'"):
        old = vae(video, num_observed_groups=2, generator=torch.Generator().manual_seed(0))
    new = vae(video, observed=2, rng=torch.Generator().manual_seed(0))
    assert torch.equal(old.reconstruction, new.reconstruction)
    with pytest.raises(TypeError, match="got 'observed' and its old name"):
        vae(video, observed=2, num_observed_groups=2)


def test_ratios_have_the_names_of_diffusers_too(tiny_vae_config):
    vae = MODELS.build(tiny_vae_config)
    assert (vae.temporal_compression_ratio, vae.spatial_compression_ratio) == (vae.temporal_ratio, vae.spatial_ratio)
    assert (vae.temporal_ratio, vae.spatial_ratio) == (4, 16)


def test_padding_token_has_a_zero_gradient_when_nothing_is_dropped(tiny_vae_config):
    vae = MODELS.build(tiny_vae_config)
    vae(rand_video()).reconstruction.square().mean().backward()
    assert torch.equal(vae.padding_token.grad, torch.zeros_like(vae.padding_token))
    vae.zero_grad()
    vae(rand_video(), 2).reconstruction.square().mean().backward()
    assert vae.padding_token.grad.abs().min() > 0


def test_gaussian_padding_is_noise_of_its_generator(tiny_vae_config):
    vae = MODELS.build(dict(tiny_vae_config, padding='gaussian'))
    assert vae.padding_token is None
    latents = torch.zeros(2, 4, 1, 32, 32)
    padded = vae.pad_latents(latents, 5, rng=[torch.Generator().manual_seed(i) for i in (3, 4)])
    assert torch.equal(padded[:, :, :1], latents)
    noise = padded[:, :, 1:]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    again = vae.pad_latents(latents[:1], 5, rng=[torch.Generator().manual_seed(3)])
    assert torch.equal(again, padded[:1])


def test_gradient_checkpointing_changes_nothing(tiny_vae_config):
    video = rand_video()
    plain = stirred(MODELS.build(tiny_vae_config))
    saving = MODELS.build(dict(tiny_vae_config, gradient_checkpointing=True))
    saving.load_state_dict(plain.state_dict())
    for vae in (plain, saving):
        output = vae(video, 3, torch.Generator().manual_seed(0))
        output.reconstruction.square().mean().backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_still_image_is_a_clip_of_one_frame(vae):
    video = rand_video(t=1)
    output = vae(video)
    assert output.reconstruction.shape == video.shape
    assert output.posterior.mean.shape[2] == 1


@torch.no_grad()
def test_predict_continues_what_it_observed(vae):
    video = rand_video(t=9)
    clip = vae.predict(video, 17)
    assert clip.shape == (2, 3, 17, 32, 32)
    torch.testing.assert_close(clip[:, :, :9], vae.decode(vae.encode(video).mode()), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match='num_frames is 5, but must be at least 9'):
        vae.predict(video, 5)


def test_latent_normalization_round_trip(vae):
    vae.latent_mean.copy_(torch.randn(4))
    vae.latent_std.copy_(torch.rand(4) + 0.5)
    latents = torch.randn(2, 4, 3, 2, 2)
    normal = vae.normalize_latents(latents)
    assert torch.allclose(normal[:, 2], (latents[:, 2] - vae.latent_mean[2]) / vae.latent_std[2])
    torch.testing.assert_close(vae.denormalize_latents(normal), latents, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((1, 3, 16, 32, 32), '16 frames.*13 or 17'),
        ((1, 3, 17, 32, 250), 'width 250.*240 or 256'),
        ((1, 3, 17, 8, 32), 'height 8.*16 or 32'),
        ((1, 1, 17, 32, 32), r'\(N, 3, T, H, W\)'),
        ((0, 3, 17, 32, 32), 'N >= 1'),
    ],
)
def test_wrong_clips_are_refused(tiny_vae_config, shape, message):
    vae = MODELS.build(tiny_vae_config)
    with pytest.raises(ValueError, match=message):
        vae(torch.zeros(shape))


def test_wrong_settings_are_refused(tiny_vae_config):
    settings = [{'padding': 'zeros'}, {'encoder_widths': (8, 8)}, {'strides': ((4, 4),) * 4}, {'strides': ()}]
    settings += [
        {'patch_size': 0},
        {'latent_channels': 0},
        {'decoder_widths': (8, 8, 8, 0, 8)},
        {'pixels_at_once': 1e6},
    ]
    for wrong in settings:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MODELS.build(dict(tiny_vae_config, **wrong))


@torch.no_grad()
def test_latents_of_any_float_are_decoded_and_nothing_else(vae):
    latents = torch.randn(1, 4, 2, 2, 2)
    expected = vae.decode(latents.half().float())
    assert torch.equal(vae.decode(latents.half()), expected)
    for wrong in (latents.long(), latents[:, :, :0], latents[:0], latents[0]):
        with pytest.raises(ValueError, match=r'latents must be float \(N, 4, t, h, w\)'):
            vae.decode(wrong)
    with pytest.raises(TypeError, match=r'call mode\(\) or sample\(\) of a posterior'):
        vae.decode(vae.encode(torch.zeros(1, 3, 5, 32, 32)))


def test_padding_beyond_the_decoders_reach_is_warned_of(tiny_vae_config):
    vae = MODELS.build(tiny_vae_config)
    groups = int(vae.decoder.temporal_reach) + 3
    with pytest.warns(UserWarning, match='decoder sees only'):
        vae.pad_latents(torch.zeros(1, 4, 1, 2, 2), groups)


@torch.no_grad()
def test_temporal_reach_is_what_the_decoder_really_sees(tiny_vae_config):
    vae = stirred(MODELS.build(tiny_vae_config)).double().eval()
    reach = vae.decoder.temporal_reach
    latents = torch.randn(1, 4, int(reach) + 4, 2, 2, dtype=torch.float64)
    changed = latents.clone()
    changed[:, :, 0] += 1.0
    # Frame T - 1 ends the last group; latent frame 0 is (groups - 1) latent frames earlier.
    difference = (vae.decode(latents) - vae.decode(changed)).abs().amax(dim=(0, 1, 3, 4))
    last_seen = int(difference.nonzero().max())
    assert abs((last_seen - 1) / 4 - reach) <= 1


def test_posterior_against_float64_loops():
    mean, logvar = torch.randn(2, 3, 4, 2, 2), torch.randn(2, 3, 4, 2, 2)
    posterior = DiagonalGaussian(mean, logvar)
    counts = [1, 3]
    total = 0.0
    for n, count in enumerate(counts):
        clip = 0.0
        for t in range(count):
            for m, v in zip(mean[n, :, t].flatten().tolist(), logvar[n, :, t].flatten().tolist(), strict=True):
                clip += 0.5 * (m * m + 2.718281828459045**v - 1 - v)
        total += clip / (count * 3 * 2 * 2)
    assert posterior.kl(torch.tensor(counts)).item() == pytest.approx(total / 2, rel=1e-5)
    samples = torch.stack([posterior.sample() for _ in range(4000)])
    assert torch.allclose(samples.mean(0), mean, atol=0.25)
    assert torch.allclose(samples.std(0), torch.exp(0.5 * logvar), rtol=0.1)

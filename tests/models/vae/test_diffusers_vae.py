"""diffusers VAEs behind our interface: equal results and predictive training."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.optim import OptimWrapper

from pvvae_plugin.registry import MODELS
from pvvae_plugin.structures import VideoDataSample

diffusers = pytest.importorskip('diffusers')
NAMES = ('wan21', 'wan22', 'cogvideox', 'hunyuan')
CAUSAL = ('wan21', 'wan22')


def build(folder, **arguments):
    return MODELS.build({'type': 'DiffusersVAE', 'pretrained': folder, 'subfolder': 'vae', **arguments}).eval()


def clip(vae, frames=9, n=2, positions=2):
    side = positions * vae.spatial_ratio
    return torch.rand(n, 3, frames, side, side, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_both_ways_are_diffusers_own(name, diffusers_folders):
    vae = build(diffusers_folders[name])
    network = getattr(diffusers, type(vae.vae).__name__)
    theirs = network.from_pretrained(diffusers_folders[name], subfolder='vae').eval()
    video = clip(vae)
    posterior, expected = vae.encode(video), theirs.encode(video).latent_dist
    assert posterior.mean.shape == (2, vae.latent_channels, 3, 2, 2)
    assert torch.equal(posterior.mean, expected.mean)
    assert torch.equal(posterior.logvar, expected.logvar)
    assert torch.equal(vae.decode(posterior.mode()), theirs.decode(expected.mode()).sample)


LONG = [(name, frames) for name in NAMES for frames in (25 if name == 'cogvideox' else 21, 33)]


@pytest.mark.parametrize(('name', 'frames'), LONG)
@torch.no_grad()
def test_long_clips_are_not_tiled(name, frames, diffusers_folders):
    """diffusers tiles HunyuanVideo's clips in time from 17 frames on, unless told otherwise."""
    vae = build(diffusers_folders[name])
    theirs = getattr(diffusers, type(vae.vae).__name__).from_pretrained(diffusers_folders[name], subfolder='vae').eval()
    video = clip(vae, frames, n=1, positions=1)
    if name == 'hunyuan':
        mean = theirs.quant_conv(theirs.encoder(video)).chunk(2, dim=1)[0]
        decoded = theirs.decoder(theirs.post_quant_conv(mean))
    else:
        mean = theirs.encode(video).latent_dist.mean
        decoded = theirs.decode(mean).sample
    assert torch.equal(vae.encode(video).mean, mean)
    assert torch.equal(vae.decode(mean), decoded)


@pytest.mark.parametrize(('name', 'frames'), LONG)
def test_the_last_frame_depends_on_the_observed_frame(name, frames, diffusers_folders):
    vae = build(diffusers_folders[name])
    observed = clip(vae, 1, n=1, positions=1).requires_grad_()
    vae.predict(observed, num_frames=frames)[:, :, -1].sum().backward()
    assert vae.temporal_reach >= frames // 4
    assert observed.grad.abs().max() > 0


@pytest.mark.parametrize('name', NAMES)
def test_temporal_reach_is_what_the_decoder_really_sees(name, diffusers_folders):
    vae = build(diffusers_folders[name])
    latents = torch.randn(1, vae.latent_channels, 33, 1, 1, requires_grad=True)
    vae.decode(latents)[:, :, -1].sum().backward()
    first = int(latents.grad.abs().amax(dim=(0, 1, 3, 4)).nonzero()[0])
    assert vae.temporal_reach == (32 - first if first else math.inf)
    assert math.isfinite(vae.temporal_reach) is (name in CAUSAL)  # the others normalize over time or attend to it


def test_padding_beyond_the_reach_is_reported(diffusers_folders):
    vae = build(diffusers_folders['wan21'])
    latents = torch.zeros(1, 16, 1, 1, 1)
    with pytest.warns(UserWarning, match='30 groups are padded, but the decoder sees only 29 latent frames back'):
        vae.pad_latents(latents, num_groups=31)
    with torch.device('meta'):
        assert build(diffusers_folders['wan21']).temporal_reach == math.inf  # nothing to measure


@pytest.mark.parametrize('name', NAMES)
@torch.no_grad()
def test_a_clip_depends_on_its_own_observed_frames_alone(name, diffusers_folders):
    vae = build(diffusers_folders[name], padding='learnable')
    assert vae.is_causal is (name in CAUSAL)
    video, counts = clip(vae, n=3), torch.tensor([1, 3, 2])
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    together = vae(video, counts, generators).reconstruction
    changed = video.clone()
    changed[0, :, 1:], changed[2, :, 5:] = 0.5, -0.5  # dropped frames
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    torch.testing.assert_close(vae(changed, counts, generators).reconstruction, together, rtol=0, atol=0)
    for i, count in enumerate(counts.tolist()):
        alone = vae(video[i : i + 1], count, torch.Generator().manual_seed(i)).reconstruction
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_predictive_training_moves_the_padding_token_and_lowers_the_loss(name, diffusers_folders):
    algorithm = MODELS.build(
        {
            'type': 'VideoAutoencoder',
            'backbone': {'type': 'DiffusersVAE', 'pretrained': diffusers_folders[name], 'subfolder': 'vae'},
            'loss': {'type': 'PredictiveReconLoss', 'lpips_weight': 0.0},
        }
    )
    vae = algorithm.backbone
    optim = OptimWrapper(torch.optim.Adam(algorithm.parameters(), lr=3e-3))
    samples = [VideoDataSample(metainfo={'num_observed_groups': k, 'draw_key': k}) for k in (1, 2)]
    bright = [torch.full(clip(vae).shape[1:], 200, dtype=torch.uint8)] * 2
    token, losses = vae.padding_token.detach().clone(), []
    for _ in range(8):
        losses.append(algorithm.train_step({'inputs': bright, 'data_samples': samples}, optim)['loss'].item())
    assert (vae.padding_token - token).abs().min() > 0
    assert losses[-1] < 0.7 * losses[0]
    assert not vae.knows_statistics  # those of the published weights


@torch.no_grad()
def test_validation_of_a_network_that_is_not_causal_encodes_each_prefix_alone(diffusers_folders):
    algorithm = MODELS.build(
        {
            'type': 'VideoAutoencoder',
            'backbone': {'type': 'DiffusersVAE', 'pretrained': diffusers_folders['cogvideox'], 'subfolder': 'vae'},
            'loss': {'type': 'PredictiveReconLoss', 'lpips_weight': 0.0},
        }
    ).eval()
    vae, video = algorithm.backbone, clip(algorithm.backbone, n=1)
    sample = algorithm(video, [VideoDataSample()], mode='predict')[0]
    expected = vae.predict(video[:, :, :5], num_frames=9)[0]
    torch.testing.assert_close(sample.predictions[2], expected)


def test_statistics_come_from_the_config(diffusers_folders):
    vae = build(diffusers_folders['cogvideox'])
    torch.testing.assert_close(vae.latent_std, torch.full((4,), 1 / 1.15258426))  # latents times the scaling factor
    assert vae.knows_statistics
    latents = torch.randn(1, 48, 2, 2, 2)
    vae = build(diffusers_folders['wan22'])
    torch.testing.assert_close(vae.normalize_latents(latents), (latents - 0.1) / 2)
    torch.testing.assert_close(vae.denormalize_latents(vae.normalize_latents(latents)), latents)


def test_lengths_that_would_come_back_as_others_are_refused(diffusers_folders):
    vae = build(diffusers_folders['cogvideox'])
    with pytest.raises(ValueError, match='does not decode 4 latent frames to 13 frames: use clips of 1 or 9 or 17'):
        vae.check_video(clip(vae, 13))
    with pytest.raises(ValueError, match='clips of 1 or 9 or 17'):
        vae.decode(torch.zeros(1, 4, 2, 2, 2))
    assert build(diffusers_folders['wan21']).check_video(clip(vae, 13)) == 4


def test_the_decoder_alone_can_be_trained(diffusers_folders):
    vae = build(diffusers_folders['hunyuan'])
    vae.freeze_encoder()
    trained = {name.split('.')[1] for name, p in vae.named_parameters() if p.requires_grad}
    assert trained == {'decoder', 'post_quant_conv'}
    assert vae.last_layer is vae.vae.decoder.conv_out.conv.weight


def test_on_the_meta_device_no_weights_are_read(diffusers_folders, tmp_path):
    shutil.copytree(diffusers_folders['wan21'], tmp_path / 'wan')
    (tmp_path / 'wan' / 'vae' / 'diffusion_pytorch_model.safetensors').unlink()
    with torch.device('meta'):
        vae = build(str(tmp_path / 'wan'))
        assert vae.decode(vae.encode(torch.empty(1, 3, 5, 16, 16)).mode()).shape == (1, 3, 5, 16, 16)
    with pytest.raises(FileNotFoundError, match='no diffusion_pytorch_model'):
        build(str(tmp_path / 'wan'))


def edited(folder: str, target: Path, **changes) -> str:
    shutil.copytree(folder, target)
    path = target / 'vae' / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return str(target)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'_class_name': 'AutoencoderKL'}, "holds 'AutoencoderKL'; supported classes: AutoencoderKLWan, "),
        ({'scale_factor_spatial': 16}, 'correct the scale factors'),
        ({'base_dim': 16}, 'the weights do not match the config'),
        ({'latents_std': None}, 'does not describe a AutoencoderKLWan'),
        ({'latents_std': [0.0] * 16}, 'latents_std must be positive'),
        ({'dim_mult': 'abcd'}, 'does not describe a AutoencoderKLWan'),
        ({'num_res_blocks': 2}, r'the weights do not match the config: \d+ missing \(decoder'),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, diffusers_folders, tmp_path):
    with pytest.raises(ValueError, match=message):
        build(edited(diffusers_folders['wan21'], tmp_path / 'wan', **changes))


def test_weights_that_could_execute_code_are_not_read(diffusers_folders, tmp_path):
    shutil.copytree(diffusers_folders['wan21'], tmp_path / 'wan')
    weights = tmp_path / 'wan' / 'vae' / 'diffusion_pytorch_model.safetensors'
    torch.save({}, weights.with_suffix('.bin'))
    weights.unlink()
    with pytest.raises(FileNotFoundError, match='can execute code'):
        build(str(tmp_path / 'wan'))
    weights.write_bytes(b'\x00' * 100)
    with pytest.raises(ValueError, match='damaged'):
        build(str(tmp_path / 'wan'))


@pytest.mark.parametrize('size', ['1GB', '100KB'])
def test_files_of_another_precision_are_named(size, diffusers_folders, tmp_path):
    network = diffusers.AutoencoderKLWan.from_pretrained(diffusers_folders['wan21'], subfolder='vae')
    network.half().save_pretrained(tmp_path, variant='fp16', max_shard_size=size)
    with pytest.raises(FileNotFoundError, match='only a variant of the weights: diffusion_pytorch_model.*fp16'):
        build(str(tmp_path), subfolder=None)
    if size == '1GB':  # the remedy in the message
        single = tmp_path / 'diffusion_pytorch_model.fp16.safetensors'
        single.rename(tmp_path / 'diffusion_pytorch_model.safetensors')
        assert build(str(tmp_path), subfolder=None).last_layer.dtype == torch.float32


def test_shards_are_what_the_digest_is_of(diffusers_folders, tmp_path):
    network = diffusers.AutoencoderKLWan.from_pretrained(diffusers_folders['wan21'], subfolder='vae')
    network.save_pretrained(tmp_path / 'vae', max_shard_size='100KB')
    vae, whole = build(str(tmp_path)), build(diffusers_folders['wan21'])
    assert torch.equal(vae.last_layer, whole.last_layer)
    (tmp_path / 'vae' / 'diffusion_pytorch_model.fp16.safetensors').write_bytes(b'not read')
    assert build(str(tmp_path)).source == vae.source
    index = tmp_path / 'vae' / 'diffusion_pytorch_model.safetensors.index.json'
    content = json.loads(index.read_text())
    content['weight_map'] = dict.fromkeys(content['weight_map'], 'weights.bin')
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"lists 'weights.bin': shards must be .safetensors"):
        build(str(tmp_path))
    shutil.copy(Path(diffusers_folders['wan21'], 'vae', 'diffusion_pytorch_model.safetensors'), tmp_path / 'vae')
    with pytest.raises(ValueError, match='remove one of the two'):
        build(str(tmp_path))


@pytest.mark.parametrize('name', NAMES)
def test_every_parameter_has_a_gradient_whatever_was_observed(name, diffusers_folders):
    """Data-parallel processes would deadlock without it."""
    vae = build(diffusers_folders[name]).train()
    for count in (1, 3):
        vae.zero_grad(set_to_none=True)
        vae(clip(vae), count).reconstruction.square().mean().backward()
        assert not [name for name, p in vae.named_parameters() if p.grad is None]


def test_what_is_not_there_says_how_to_get_it(diffusers_folders, tmp_path, monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    message = r"hf download some/vae --include 'vae/\*', or set download=True. For a folder, .* --local-dir some/vae"
    with pytest.raises(FileNotFoundError, match=message):
        build('some/vae')
    with pytest.raises(FileNotFoundError, match="no folder '/no/such/folder'"):
        build('/no/such/folder')
    with pytest.raises(FileNotFoundError, match=r"set subfolder to one of \['vae'\]"):
        build(diffusers_folders['wan21'], subfolder=None)
    with pytest.raises(ValueError, match='gradient_checkpointing=False'):
        build(diffusers_folders['wan21'], gradient_checkpointing=True)

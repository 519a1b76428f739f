"""Tiled processing of a large video equals a single pass."""

import pytest
import torch

from pvvae_plugin.models.vae import PredictiveVAE
from pvvae_plugin.models.vae.tiling import spans

LAYOUTS = {
    'paper': {},
    'patches': {'patch_size': 2},
    'time last': {'strides': ((1, 2), (1, 2), (2, 1), (2, 2))},
    'time first': {'strides': ((2, 1), (2, 2), (1, 2), (1, 2))},
    'one stage': {'strides': ((2, 2),), 'encoder_widths': (4, 4), 'decoder_widths': (4, 4)},
    'no change of resolution': {'strides': ((1, 1),), 'encoder_widths': (4, 4), 'decoder_widths': (4, 4)},
}


def network(**changes):
    torch.manual_seed(0)
    widths = (4, 4, 6, 6, 6)
    config = {'latent_channels': 4, 'encoder_widths': widths, 'decoder_widths': widths, 'attention': True}
    vae = PredictiveVAE(**{**config, 'encoder_blocks': 1, 'decoder_blocks': 1, **changes}).double()
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return vae


def in_parts(vae, video, pixels):
    vae.pixels_at_once = pixels
    posterior = vae.encode(video)
    return posterior.mean, posterior.logvar, vae.decode(posterior.mean)


@pytest.mark.parametrize('layout', LAYOUTS)
@torch.no_grad()
def test_parts_give_the_whole(layout):
    vae = network(**LAYOUTS[layout])
    video = torch.rand(2, 3, 1 + 2 * vae.temporal_ratio, 64, 32, dtype=torch.float64) * 2 - 1
    whole = in_parts(vae, video, 10**9)
    clip = video[0, 0].numel()
    for pixels in (clip, clip // 2, vae.temporal_ratio * 40**2):
        for part, expected in zip(in_parts(vae, video, pixels), whole, strict=True):
            assert (part - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('groups', [1, 2])
@torch.no_grad()
def test_streams_of_large_frames_give_the_whole(layout, groups):
    vae = network(**LAYOUTS[layout])
    video = torch.rand(2, 3, 1 + 4 * vae.temporal_ratio, 64, 32, dtype=torch.float64) * 2 - 1
    mean, _, decoded = in_parts(vae, video, 10**9)
    vae.pixels_at_once = vae.temporal_ratio * 40**2
    latents = [posterior.mean for posterior in vae.encode_stream(video.unbind(2), groups)]
    frames = list(vae.decode_stream(latents))
    for part, expected in ((torch.cat(latents, dim=2), mean), (torch.cat(frames, dim=2), decoded)):
        assert (part - expected).abs().max() <= 1e-12 * expected.abs().max()


@torch.no_grad()
def test_a_stream_keeps_its_tiles():
    vae, video = network(), torch.rand(1, 3, 9, 64, 32, dtype=torch.float64)
    vae.pixels_at_once = 4 * 40**2
    _, state = vae.encode_chunk(video[:, :, :5])
    _, decoded = vae.decode_chunk(torch.zeros(1, 4, 1, 4, 2, dtype=torch.float64))
    vae.pixels_at_once = 10**9
    with pytest.raises(ValueError, match='keep pixels_at_once'):
        vae.encode_chunk(video[:, :, 5:], state)
    with pytest.raises(ValueError, match='keep pixels_at_once'):
        vae.decode_chunk(torch.zeros(1, 4, 1, 4, 2, dtype=torch.float64), decoded)
    vae.pixels_at_once = 4 * 40**2
    with pytest.raises(ValueError, match='another number or size'):
        vae.encode_chunk(torch.rand(1, 3, 4, 64, 96, dtype=torch.float64), state)


@torch.no_grad()
def test_parts_in_float32():
    vae, video = network().float(), torch.rand(2, 3, 9, 64, 32) * 2 - 1
    whole = in_parts(vae, video, 10**9)
    for pixels in (9 * 64 * 32, 5 * 64 * 32, 4 * 40**2):
        for part, expected in zip(in_parts(vae, video, pixels), whole, strict=True):
            assert (part - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize('coder', ['encoder', 'decoder'])
@torch.no_grad()
def test_tiles_have_the_context_they_need_and_no_more(coder):
    vae = network()
    video = torch.rand(1, 3, 5, 64, 32, dtype=torch.float64) * 2 - 1
    whole = in_parts(vae, video, 10**9)
    getattr(vae, coder).halo -= 1
    differences = [
        (part - expected).abs().max() for part, expected in zip(in_parts(vae, video, 4 * 40**2), whole, strict=True)
    ]
    assert differences[0 if coder == 'encoder' else 2] > 1e-9


@torch.no_grad()
def test_no_part_is_larger_than_asked(monkeypatch):
    vae, seen = network(), []
    monkeypatch.setattr(vae.encoder.stem, 'forward', lambda x, *args: seen.append(x[:, 0].numel()) or stem(x, *args))
    stem = type(vae.encoder.stem).forward.__get__(vae.encoder.stem)
    video = torch.rand(2, 3, 5, 64, 32, dtype=torch.float64)
    for pixels in (10**9, 5 * 64 * 32, 4 * 64 * 32, 4 * 40 * 40):
        seen.clear()
        in_parts(vae, video, pixels)
        assert max(seen) <= pixels
        assert sum(seen) >= video[:, 0].numel()
    assert len(seen) > 2 * 2


def test_with_gradients_a_video_passes_whole():
    vae = network()
    video = torch.rand(2, 3, 5, 32, 32, dtype=torch.float64)
    small = in_parts(vae, video, 1)
    whole = in_parts(vae, video, 10**9)
    assert all(torch.equal(a, b) and a.requires_grad for a, b in zip(small, whole, strict=True))


@pytest.mark.parametrize(('length', 'at_most', 'halo'), [(10, 10, 3), (11, 10, 3), (64, 20, 4), (7, 1, 2), (1, 5, 1)])
def test_spans_cover_a_side_once(length, at_most, halo):
    pieces = list(spans(length, at_most, halo))
    assert [place for piece, _ in pieces for place in range(length)[piece]] == list(range(length))
    for piece, seen in pieces:
        assert seen.start == max(0, piece.start - halo) and seen.stop == min(length, piece.stop + halo)
        assert seen.stop - seen.start <= max(at_most, 4 * halo, 1)  # more than half of a smaller tile would be context


def test_sides_that_do_not_divide_are_padded_on_request():
    vae = network()
    video = torch.rand(1, 3, 5, 30, 49, dtype=torch.float64)
    with pytest.raises(ValueError, match='pad_sides'):
        vae.encode(video)
    padded = vae.pad_sides(video)
    assert padded.shape == (1, 3, 5, 32, 64)
    assert torch.equal(padded[..., :30, :49], video)
    assert (padded[..., 30:, :49] == video[..., -1:, :]).all() and (padded[..., :30, 49:] == video[..., -1:]).all()
    assert vae.decode(vae.encode(padded).mean)[..., :30, :49].shape == video.shape
    assert torch.equal(vae.pad_sides(padded), padded)


def test_a_part_of_no_pixels_is_refused():
    with pytest.raises(ValueError, match='pixels_at_once must be a positive integer, got 0'):
        network(pixels_at_once=0)
    vae = network()
    vae.pixels_at_once = -5
    with torch.no_grad(), pytest.raises(ValueError, match='pixels_at_once must be a positive integer, got -5'):
        vae.encode(torch.rand(1, 3, 5, 32, 32))

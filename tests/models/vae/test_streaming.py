"""Streaming in chunks of any size equals a single pass, in constant memory."""

from __future__ import annotations

import pytest
import torch

from pvvae_plugin.registry import MODELS


@pytest.fixture(params=['paper', 'patches', 'time last'])
def vae(request, tiny_vae_config):
    layouts = {
        'paper': {},
        'patches': {
            'patch_size': 2,
            'strides': ((2, 2), (2, 1)),
            'encoder_widths': (8, 8, 8),
            'decoder_widths': (8, 8, 8),
        },
        'time last': {'strides': ((1, 2), (1, 2), (2, 1), (2, 2)), 'attention': False},
    }
    vae = MODELS.build({**tiny_vae_config, **layouts[request.param]}).double().eval()
    for parameter in vae.parameters():  # blocks start as the identity, which has no temporal memory
        torch.nn.init.normal_(parameter, std=0.2)
    return vae


def clip(vae, groups, n=2):
    side = 2 * vae.spatial_ratio
    generator = torch.Generator().manual_seed(groups)
    return torch.rand(n, 3, 1 + 4 * (groups - 1), side, side, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize('groups', [[1, 1, 1, 1, 1, 1], [6], [1, 5], [2, 3, 1], [3, 1, 2]])
@torch.no_grad()
def test_chunks_give_what_one_pass_gives(vae, groups):
    video = clip(vae, 6)
    whole = vae.encode(video)
    state, start, parts = None, 0, []
    for count in groups:
        frames = 4 * count - (3 if state is None else 0)
        posterior, state = vae.encode_chunk(video[:, :, start : start + frames], state)
        parts.append(posterior)
        start += frames
    for name in ('mean', 'logvar'):
        torch.testing.assert_close(
            torch.cat([getattr(p, name) for p in parts], dim=2), getattr(whole, name), rtol=1e-10, atol=1e-10
        )
    state, decoded = None, []
    for latents in whole.mean.split(groups, dim=2):
        frames, state = vae.decode_chunk(latents, state)
        decoded.append(frames)
    assert [part.shape[2] for part in decoded] == [4 * c - (3 if i == 0 else 0) for i, c in enumerate(groups)]
    torch.testing.assert_close(torch.cat(decoded, dim=2), vae.decode(whole.mean), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('groups_per_chunk', [1, 2, 4, 9])
@torch.no_grad()
def test_streams_in_float32(vae, groups_per_chunk):
    vae = vae.float()
    video = clip(vae, 7).float()
    whole = vae.encode(video)
    latents = [p.mode() for p in vae.encode_stream(video.unbind(2), groups_per_chunk)]
    assert {part.shape[2] for part in latents[:-1]} <= {groups_per_chunk}
    torch.testing.assert_close(
        torch.cat(latents, 2), whole.mode(), rtol=1e-5, atol=1e-5 * whole.mean.abs().max().item()
    )
    decoded = torch.cat(list(vae.decode_stream(latents)), 2)
    expected = vae.decode(whole.mode())
    torch.testing.assert_close(decoded, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@torch.no_grad()
def test_the_state_does_not_grow_and_holds_no_chunk(vae):
    sizes = set()
    state = None
    for _ in range(5):
        chunk = clip(vae, 3)[:, :, 1:] if state else clip(vae, 3)
        _, state = vae.encode_chunk(chunk, state)
        sizes.add(sum(part.untyped_storage().nbytes() for part in state))
    assert len(sizes) == 1
    assert all(part.untyped_storage().nbytes() == part.numel() * part.element_size() for part in state)


@torch.no_grad()
def test_videos_may_take_turns(vae):
    """The network holds no state, so interleaved videos do not interfere."""
    video, other = clip(vae, 4), clip(vae, 5)
    first, state = vae.encode_chunk(video[:, :, :5])
    vae.encode_chunk(other)
    second, _ = vae.encode_chunk(video[:, :, 5:], state)
    again, _ = vae.encode_chunk(video[:, :, 5:], state)
    assert torch.equal(second.mean, again.mean)
    torch.testing.assert_close(torch.cat([first.mean, second.mean], 2), vae.encode(video).mean, rtol=1e-10, atol=1e-10)


def test_what_does_not_fit_is_refused(vae):
    video = clip(vae, 3)
    with pytest.raises(ValueError, match='does not split into groups'):
        vae.encode_chunk(video[:, :, :4])
    _, state = vae.encode_chunk(video[:, :, :5])
    with pytest.raises(ValueError, match='a chunk after the first must be .* with T a multiple of 4'):
        vae.encode_chunk(video[:, :, :5], state)
    with pytest.raises(ValueError, match='belongs to another network'):
        vae.decode_chunk(torch.zeros(2, vae.latent_channels, 1, 2, 2).double(), state[:1])
    with pytest.raises(ValueError, match='does not split into groups'):
        list(vae.encode_stream(video[:, :, :7].unbind(2)))
    with pytest.raises(ValueError, match='another number or size'):
        vae.encode_chunk(video[:1, :, 5:], state)
    with pytest.raises(ValueError, match='a clip of 0 frames'):
        list(vae.encode_stream([]))
    with pytest.raises(ValueError, match='all frames need the same shape'):
        list(vae.encode_stream([video[:, :, 0], video[:, :, 1], video[:, :, 2, :, :1]]))
    with pytest.raises(TypeError, match=r'call mode\(\) or sample\(\) of a posterior'):
        list(vae.decode_stream(vae.encode_stream(video.unbind(2))))
    with pytest.raises(ValueError, match='groups_per_chunk must be positive'):
        list(vae.encode_stream(video.unbind(2), 0))

"""The fast and plain paths agree with each other and with their definitions."""

import pytest
import torch
import torch.nn.functional as F

from pvvae_plugin.devices import known_fault
from pvvae_plugin.models.vae import PredictiveVAE
from pvvae_plugin.models.vae.layers import CausalConv3d
from pvvae_plugin.models.vae.ops import conv3d, is_fast, norm_silu, plain_path, upsample_conv

CONFIG = {
    'latent_channels': 4,
    'encoder_widths': (8, 8, 16),
    'decoder_widths': (8, 16, 16),
    'encoder_blocks': 1,
    'decoder_blocks': 1,
    'strides': ((2, 2), (2, 2)),
}


def network(dtype=torch.float64, **changes):
    torch.manual_seed(0)
    vae = PredictiveVAE(**{**CONFIG, **changes}).to(dtype)
    with torch.no_grad():
        for parameter in vae.parameters():  # zero initial weights would hide errors
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vae


def results(vae, video):
    """Return the results of the forward and backward passes."""
    counts = torch.tensor([1, 3])[-len(video) :]
    out = vae(video, counts, torch.Generator().manual_seed(1))
    loss = out.reconstruction.square().sum() + out.posterior.kl(counts)
    return [out.reconstruction, out.posterior.mean[-1], *torch.autograd.grad(loss, list(vae.parameters()))]


@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize('changes', [{}, {'attention': False, 'strides': ((1, 2), (2, 1))}, {'patch_size': 2}])
def test_network_and_its_gradients_are_those_of_the_plain_path(batch, dtype, tolerance, changes):
    vae = network(dtype, **changes)
    video = torch.rand(batch, 3, 9, 16, 16, dtype=dtype) * 2 - 1
    fast = results(vae, video)
    with plain_path():
        plain = results(vae, video)
    for ours, theirs in zip(fast, plain, strict=True):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1)


def test_half_precision_is_as_near_to_float64_as_the_plain_path():
    vae, video = network(), torch.rand(2, 3, 9, 16, 16, dtype=torch.float64) * 2 - 1
    exact = vae.decode(vae.encode(video).mean)
    vae, video = vae.to(torch.bfloat16), video.to(torch.bfloat16)
    fast = vae.decode(vae.encode(video).mean)
    with plain_path():
        plain = vae.decode(vae.encode(video).mean)
    ours, theirs = ((out.double() - exact).square().mean() for out in (fast, plain))
    assert fast.dtype == torch.bfloat16 and ours < 1.5 * theirs


def test_under_autocast_it_is_as_near_to_float32_as_the_plain_path():
    vae, video = network(torch.float32), torch.rand(2, 3, 9, 16, 16) * 2 - 1
    exact = results(vae, video)
    with torch.autocast('cpu', torch.bfloat16):
        fast = results(vae, video)
        with plain_path():
            plain = results(vae, video)
    assert fast[0].dtype == plain[0].dtype == torch.bfloat16
    ours, theirs = (sum((a - b).square().sum() for a, b in zip(out, exact, strict=True)) for out in (fast, plain))
    assert 0 < ours < 1.5 * theirs


def test_a_still_image_is_the_same_without_the_taps_that_meet_padding():
    vae, image = network(), torch.rand(2, 3, 1, 16, 16, dtype=torch.float64) * 2 - 1
    fast = vae.encode(image).mean
    with plain_path():
        assert (vae.encode(image).mean - fast).abs().max() < 1e-12


@pytest.mark.parametrize('past', [0, 2, 'frames'])
def test_norm_and_activation_by_their_definition(past):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    frames = torch.randn(2, 5, 2, 2, 4, dtype=torch.float64, requires_grad=True)
    normed = x / (x.square().mean(dim=1, keepdim=True) + 1e-6).sqrt() * weight.view(1, 5, 1, 1, 1)
    expected = normed / (1 + (-normed).exp())
    if past == 'frames':
        expected = torch.cat([frames, expected], dim=2)
    elif past:
        expected = torch.cat([torch.zeros(2, 5, past, 2, 4), expected], dim=2)
    given = frames if past == 'frames' else past
    with torch.no_grad():
        assert (norm_silu(x, weight, given) - expected).abs().max() < 1e-12
    assert torch.autograd.gradcheck(norm_silu, (x, weight, given))


def test_norm_of_zeros_is_zero():
    assert not norm_silu(torch.zeros(1, 4, 1, 2, 2), torch.ones(4)).any()


def test_upsampling_by_its_definition():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    out = upsample_conv(x, weight, bias)
    assert out.shape == (2, 4, 2, 6, 10)
    for row in range(6):  # each output from the repeated input, zeros outside
        for column in range(10):
            value = bias.view(1, 4, 1).expand(2, 4, 2)
            for i in range(3):
                for j in range(3):
                    y, z = row + i - 1, column + j - 1
                    if 0 <= y < 6 and 0 <= z < 10:
                        value = value + torch.einsum('dc,nct->ndt', weight[:, :, 0, i, j], x[:, :, :, y // 2, z // 2])
            assert (out[:, :, :, row, column] - value).abs().max() < 1e-12
    assert torch.autograd.gradcheck(upsample_conv, (x, weight, bias))


@pytest.mark.parametrize('kernel', [(1, 1, 1), (1, 3, 3), (3, 1, 1), (3, 3, 3)])
@pytest.mark.parametrize('stride', [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize('batch', [1, 2])
def test_convolution_of_single_and_several_clips(kernel, stride, batch):
    torch.manual_seed(0)
    conv = CausalConv3d(3, 4, kernel, stride)
    x = torch.randn(batch, 3, 5, 6, 6)
    exact = F.conv3d(x.double(), conv.weight.double(), conv.bias.double(), stride, (0, kernel[1] // 2, kernel[2] // 2))
    assert (conv3d(x, conv.weight, conv.bias, stride) - exact).abs().max() < 1e-5


def test_the_plain_path_ends_with_its_block():
    assert is_fast()
    with pytest.raises(KeyError), plain_path():
        assert not is_fast()
        raise KeyError
    assert is_fast()


def test_plain_paths_of_several_threads_end_with_the_last():
    first, second = plain_path(), plain_path()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not is_fast()
    second.__exit__(None, None, None)
    assert is_fast()


def test_gradients_of_gradients_are_those_of_the_plain_path():
    """Second derivatives, as in a gradient penalty."""
    x, weight = torch.randn(1, 4, 2, 3, 3, dtype=torch.float64), torch.rand(4, dtype=torch.float64)

    def penalized():
        leaf, scale = x.clone().requires_grad_(), weight.clone().requires_grad_()
        (grad,) = torch.autograd.grad(norm_silu(leaf, scale, 1).sum(), leaf, create_graph=True)
        grad.square().sum().backward()
        return leaf.grad, scale.grad

    fast = penalized()
    with plain_path():
        plain = penalized()
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_compiled_blocks_cover_encoding_and_decoding(monkeypatch):
    graphs, blocks = [], []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    def compile_block(self, **kw):
        blocks.append(self)
        original(self, backend=backend, **kw)

    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, 'compile', compile_block)
    eager, compiled = network(attention=True), network(attention=True, compile=True)
    video = torch.rand(2, 3, 9, 16, 16, dtype=torch.float64) * 2 - 1
    for ours, theirs in zip(results(compiled, video), results(eager, video), strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max().clamp(min=1)
    parameters = {id(parameter) for block in blocks for parameter in block.parameters()}
    left_out = {name for name, parameter in compiled.named_parameters() if id(parameter) not in parameters}
    assert graphs and left_out == {'encoder.norm.weight', 'decoder.norm.weight', 'padding_token'}
    with torch.no_grad():
        parts = [posterior.mean for posterior in compiled.encode_stream(video.unbind(2))]
        assert (torch.cat(parts, dim=2) - eager.encode(video).mean).abs().max() < 1e-10


@torch.no_grad()
def test_decoding_in_half_precision_is_close_and_encoding_stays_exact():
    vae, half = network(torch.float32), network(torch.float32, decode_dtype='bfloat16')
    video = torch.rand(2, 3, 5, 16, 16) * 2 - 1
    latents = half.encode(video).mean
    assert torch.equal(latents, vae.encode(video).mean)
    exact, rounded = vae.decode(latents), half.decode(latents)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() < 0.03 * exact.norm()
    assert torch.equal(half.decode_chunk(latents)[0], rounded)
    with torch.enable_grad():
        assert torch.equal(half.decode(latents), exact)
    with pytest.raises(ValueError, match="decode_dtype must be 'bfloat16' or None, got 'half'"):
        network(decode_dtype='half')


@pytest.mark.parametrize(
    ('version', 'cudnn', 'message'),
    [
        ('2.9.0+cu128', 91002, 'torch 2.9.0 never'),
        ('2.9.0', 91500, 'torch 2.9.0 never'),
        ('2.9.1+cu130', 91300, 'cuDNN 9.13 for'),
        ('2.10.0', 91002, '9.15 or later'),
        ('2.9.1', 91500, None),
        ('2.8.0+cu128', 91002, 'returns wrong results'),
        ('2.7.1', 90501, None),
        ('2.11.0+cu128', 91900, None),
        ('2.12.0a0+git12', 91501, None),
        ('2.13.0+cpu', None, None),
    ],
)
def test_versions_known_to_be_bad_are_told(version, cudnn, message):
    found = known_fault(version, cudnn)
    assert found is None if message is None else message in found


def test_a_network_built_with_a_bad_version_warns(monkeypatch):
    monkeypatch.setattr('pvvae_plugin.models.vae.predictive_vae.fault_here', lambda: 'torch 2.9.0 never')
    with pytest.warns(UserWarning, match=r'torch 2\.9\.0 never'):
        network()

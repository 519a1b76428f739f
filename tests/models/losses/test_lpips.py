import copy
import sys
import types
from collections import OrderedDict

import pytest
import torch
from torch import nn

from pvvae_plugin.models.losses.lpips import BACKBONES, LPIPS

# AlexNet's features with torchvision's indices and narrower layers
CONVS = {0: (3, 4, 11), 3: (4, 5, 5), 6: (5, 6, 3), 8: (6, 7, 3), 10: (7, 8, 3)}
SLICES = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}


class FakeBackbone(nn.Module):
    """Five slices whose convolutions keep torchvision's indices, as in the package."""

    def __init__(self):
        super().__init__()
        for index, (fan_in, fan_out, size) in CONVS.items():
            conv = nn.Conv2d(fan_in, fan_out, size, padding=size // 2)
            setattr(self, f'slice{SLICES[index]}', nn.Sequential(OrderedDict({str(index): conv})))

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


class FakeNetwork(nn.Module):
    """Mean squared distance of the last features. Records its calls."""

    def __init__(self, net, pnet_rand, verbose):
        super().__init__()
        assert pnet_rand and not verbose  # the package would download or print with other arguments
        self.net = FakeBackbone()
        self.calls = []

    def forward(self, x, y):
        self.calls.append((len(x), self.net.slice1[0](x).dtype))
        return (self.net(x) - self.net(y)).square().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', types.SimpleNamespace(LPIPS=FakeNetwork))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    return tmp_path / 'checkpoints'


@pytest.fixture
def alexnet_file(cache):
    torch.manual_seed(0)
    state = {'classifier.1.weight': torch.zeros(2, 2)}
    for index, (fan_in, fan_out, size) in CONVS.items():
        state[f'features.{index}.weight'] = torch.randn(fan_out, fan_in, size, size) * 0.1
        state[f'features.{index}.bias'] = torch.randn(fan_out) * 0.1
    torch.save(state, cache / BACKBONES['alex'][1])
    return cache / BACKBONES['alex'][1]


@pytest.fixture
def distance(package, alexnet_file):
    return LPIPS(net='alex')


def clips(*shape):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(*shape, generator=generator) * 2 - 1, torch.rand(*shape, generator=generator) * 2 - 1


def test_backbone_gets_the_files_weights(distance, alexnet_file):
    state = torch.load(alexnet_file)
    for index in CONVS:
        conv = getattr(distance._network[0].net, f'slice{SLICES[index]}')[0]
        torch.testing.assert_close(conv.weight, state[f'features.{index}.weight'], rtol=0, atol=0)
        torch.testing.assert_close(conv.bias, state[f'features.{index}.bias'], rtol=0, atol=0)


def test_frames_are_compared_one_by_one_and_in_chunks(distance, monkeypatch):
    a, b = clips(2, 3, 5, 32, 32)
    whole = distance(a, b)
    assert whole.shape == (2, 5)
    network = distance._network[0]
    for n in range(2):
        for t in range(5):
            alone = network(a[n, :, t][None], b[n, :, t][None]).item()
            assert whole[n, t].item() == pytest.approx(alone, rel=1e-5)
    network.calls.clear()
    monkeypatch.setattr('pvvae_plugin.models.losses.lpips.CHUNK_PIXELS', 4 * 32 * 32)
    torch.testing.assert_close(distance(a, b), whole)
    assert [call[0] for call in network.calls] == [4, 4, 2]


def test_gradient_reaches_the_reconstruction_and_nothing_else(distance):
    a, b = clips(1, 3, 2, 32, 32)
    a.requires_grad_()
    distance(a, b).sum().backward()
    assert a.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in distance._network[0].parameters())


def test_runs_in_float32_whatever_surrounds_it(distance):
    a, b = clips(1, 3, 2, 32, 32)
    distance.to(torch.bfloat16)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = distance(a, b)
    assert out.dtype == torch.float32
    assert {call[1] for call in distance._network[0].calls} == {torch.float32}


def test_leaves_no_trace_in_a_model(distance):
    model = nn.ModuleDict({'vae': nn.Linear(2, 2), 'lpips': distance})
    assert set(model.state_dict()) == {'vae.weight', 'vae.bias'}
    assert len(list(model.parameters())) == 2
    model.load_state_dict(nn.ModuleDict({'vae': nn.Linear(2, 2)}).state_dict(), strict=True)
    model.train()
    assert not any(module.training for module in distance._network[0].modules())
    a, b = clips(1, 3, 1, 32, 32)
    torch.testing.assert_close(copy.deepcopy(model)['lpips'](a, b), distance(a, b))


def test_building_it_draws_no_random_numbers(package, alexnet_file):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    LPIPS(net='alex')
    torch.testing.assert_close(torch.rand(3), expected)


def test_weights_by_path(package, alexnet_file, tmp_path):
    elsewhere = alexnet_file.rename(tmp_path / 'mine.pth')
    LPIPS(net='alex', weights=elsewhere)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        LPIPS(net='alex')


def test_missing_weights_say_where_and_how(package, cache):
    with pytest.raises(FileNotFoundError) as error:
        LPIPS(net='vgg', weights='/nowhere/vgg.pth')
    message = str(error.value)
    for part in ('/nowhere/vgg.pth', str(cache / 'vgg16-397923af.pth'), 'python -c', 'torchvision.models.vgg16('):
        assert part in message
    assert 'do without LPIPS' in message


def test_missing_package_says_what_to_install(monkeypatch, alexnet_file):
    monkeypatch.setitem(sys.modules, 'lpips', None)
    with pytest.raises(ImportError, match=r'pip install "pvvae_plugin\[lpips\]"'):
        LPIPS(net='alex')


def test_weights_of_another_network(package, cache):
    torch.save({'features.0.weight': torch.zeros(1)}, cache / BACKBONES['alex'][1])
    with pytest.raises(ValueError, match=r'lacks features\.0\.bias, .* and others'):
        LPIPS(net='alex')


def test_same_names_other_shapes(package, alexnet_file):
    state = torch.load(alexnet_file)
    state['features.3.weight'] = torch.zeros(1)
    torch.save(state, alexnet_file)
    with pytest.raises(ValueError, match='slice2.3.weight'):
        LPIPS(net='alex')


def test_errors_name_the_value(distance):
    with pytest.raises(ValueError, match=r"\['alex', 'vgg'\], got 'squeeze'"):
        LPIPS(net='squeeze')
    with pytest.raises(ValueError, match='31 x 31 pixels, got 16 x 16'):
        distance(*clips(1, 3, 1, 16, 16))
    with pytest.raises(ValueError, match=r'\(1, 3, 2, 32, 32\) and \(1, 3, 1, 32, 32\)'):
        distance(clips(1, 3, 2, 32, 32)[0], clips(1, 3, 1, 32, 32)[0])


# (kernel, stride, padding) up to the last features that LPIPS compares; pooling has no padding
CONV3, POOL2, POOL3 = (3, 1, 1), (2, 2, 0), (3, 2, 0)
LAYERS = {
    'alex': [(11, 4, 2), POOL3, (5, 1, 2), POOL3, CONV3, CONV3, CONV3],
    'vgg': [*[CONV3] * 2, POOL2, *[CONV3] * 2, POOL2, *[CONV3] * 3, POOL2, *[CONV3] * 3, POOL2, *[CONV3] * 3],
}


@pytest.mark.parametrize('net', BACKBONES)
def test_the_smallest_frames_are_those_of_the_networks_arithmetic(net):
    def last_side(side):
        for kernel, stride, padding in LAYERS[net]:
            side = (side + 2 * padding - kernel) // stride + 1
        return side

    assert next(side for side in range(1, 99) if last_side(side) >= 1) == BACKBONES[net][2]


@pytest.mark.parametrize('net', ['vgg', 'alex'])
def test_the_real_package_with_random_weights(net, cache):
    lpips = pytest.importorskip('lpips')
    reference = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    backbone = reference.net.state_dict()
    file = cache / BACKBONES[net][1]
    torch.save({'features.' + key.split('.', 1)[1]: value for key, value in backbone.items()}, file)

    smallest = BACKBONES[net][2]
    a, b = clips(1, 3, 2, smallest, smallest)
    a[:, :, 1], b[:, :, 1] = -1, -1  # a black frame, for which features are zero
    a.requires_grad_()
    ours = LPIPS(net=net)(a, b)
    for t in range(2):
        torch.testing.assert_close(ours[0, t], reference(a[:, :, t], b[:, :, t]).flatten()[0], rtol=1e-4, atol=1e-7)
    ours.sum().backward()
    assert a.grad.isfinite().all()
    with pytest.raises(RuntimeError):
        reference(*(v[:, :, 0, : smallest - 1, : smallest - 1] for v in (a, b)))

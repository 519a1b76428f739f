import hashlib

import pytest
import torch
from plain_i3d import other_names, plain_i3d, random_file
from safetensors.torch import save_file

from pvvae_plugin.evaluation.extractors import I3D, build_extractor
from pvvae_plugin.evaluation.extractors.i3d import i3d_input
from pvvae_plugin.evaluation.protocols import PROTOCOLS


@pytest.fixture(scope='module')
def state():
    return random_file()


@pytest.fixture(scope='module')
def folder(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp('weights')
    torch.save(state, folder / 'ours.pt')
    torch.save(other_names(state), folder / 'other.pth')
    torch.save({f'module.{name}': tensor for name, tensor in state.items()}, folder / 'parallel.pt')
    save_file(state, folder / 'ours.safetensors')
    return folder


@pytest.fixture(scope='module')
def clip():
    return torch.rand(1, 3, 17, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope='module')
def extractors(folder):
    return {eps: I3D(folder / 'ours.pt', batch_norm_eps=eps) for eps in (1e-3, 1e-5)}


@pytest.fixture(scope='module')
def features(extractors, clip):
    """Of nine frames."""
    return {eps: extractor(clip[:, :, :9]) for eps, extractor in extractors.items()}


@pytest.mark.parametrize('eps', [1e-3, 1e-5])
@pytest.mark.parametrize('num_frames', [9, 16, 17])
def test_every_layer_is_the_published_one(extractors, state, clip, num_frames, eps):
    video = clip[:, :, :num_frames]
    expected = plain_i3d(state, video, eps)
    features = extractors[eps](video)
    assert features.shape == (1, 400)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, atol=1e-5 * expected.abs().max().item(), rtol=1e-5)


def test_epsilon_matters(features):
    assert (features[1e-3] - features[1e-5]).abs().max() > 0.01 * features[1e-3].abs().max()


@pytest.mark.parametrize('file', ['other.pth', 'ours.safetensors', 'parallel.pt'])
def test_names_and_formats_of_files_do_not_matter(folder, clip, features, file):
    assert torch.equal(I3D(folder / file)(clip[:, :, :9]), features[1e-3])


def test_eight_frames_are_too_few(extractors, clip):
    with pytest.raises(ValueError, match='at least 9 frames, got 8'):
        extractors[1e-3](clip[:, :, :8])


def test_each_clip_by_itself_and_of_any_size():
    extractor = I3D(None, resize='short-side-crop')
    video = torch.rand(2, 3, 9, 40, 60) * 2 - 1
    both = extractor(video)
    torch.testing.assert_close(both[1:], extractor(video[1:]), atol=1e-4, rtol=1e-4)
    assert not both.requires_grad
    assert not torch.allclose(both[0], both[1])


def test_values_and_sizes_of_the_input():
    video = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 3, 1, 1).expand(1, 3, 3, 4, 8)
    assert i3d_input(video, 'stretch', (-0.5, 0.5))[0, 0, :, 0, 0].tolist() == [-0.5, 0, 0.5]
    assert i3d_input(video, 'stretch', (0, 255))[0, 0, :, 0, 0].tolist() == [0, 127.5, 255]
    assert i3d_input(video, 'short-side-crop', (-1, 1)).shape == (1, 3, 3, 224, 224)
    bright = torch.cat([torch.zeros(1, 3, 1, 8, 4), torch.ones(1, 3, 1, 8, 8), torch.zeros(1, 3, 1, 8, 4)], dim=-1)
    assert i3d_input(bright, 'short-side-crop', (-1, 1)).mean() > 0.95
    assert i3d_input(bright, 'stretch', (-1, 1)).mean() == pytest.approx(0.5, abs=1e-3)


def test_what_the_protocol_says_is_done(folder):
    extractor = build_extractor({'type': 'I3D', 'weights': str(folder / 'ours.pt')}, PROTOCOLS['videogpt'])
    record = extractor.record()
    assert record['batch_norm_eps'] == 1e-5
    assert record['preprocessing']['resize'] == 'short-side-crop'
    assert record['preprocessing']['value_range'] == [-0.5, 0.5]
    digest = hashlib.sha256((folder / 'ours.pt').read_bytes()).hexdigest()
    assert record['weights'] == {'file': 'ours.pt', 'sha256': digest, 'known_as': None}
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_random_weights_are_called_so(log_lines):
    first, second = I3D(None), I3D(None)
    assert first.record()['weights']['known_as'] == 'random'
    assert 'metrics are meaningless' in log_lines[-1]
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_files_of_another_network(tmp_path, state):
    path = tmp_path / 'weights.pt'

    def refused(changed, match):
        torch.save(changed, path)
        with pytest.raises(ValueError, match=match):
            I3D(path)

    without = {key: tensor for key, tensor in state.items() if key != 'Mixed_4d.b2a.bn.running_mean'}
    refused(without, r'weights.pt .*1 missing \(Mixed_4d.b2a.bn.running_mean\)')
    refused({**state, 'Mixed_6a.b0.conv3d.weight': torch.zeros(1)}, r'1 unknown \(Mixed_6a.b0.conv3d.weight\)')
    fewer = {'logits.conv3d.weight': torch.zeros(157, 1024, 1, 1, 1), 'logits.conv3d.bias': torch.zeros(157)}
    refused({**state, **fewer}, r'2 of another shape \(logits.conv3d.weight \(157, 1024, 1, 1, 1\) instead of \(400')
    # old files have no num_batches_tracked
    torch.save({key: tensor for key, tensor in state.items() if 'num_batches' not in key}, path)
    I3D(path)


def test_refusals(folder, tmp_path, monkeypatch):
    monkeypatch.delenv('PVVAE_WEIGHTS', raising=False)
    with pytest.raises(FileNotFoundError, match='i3d_pretrained_400.pt'):
        I3D(tmp_path / 'i3d.pt')
    with pytest.raises(ValueError, match='piergiaj'):
        I3D('weights/rgb_imagenet.pt')
    with pytest.raises(ValueError, match='sha256'):
        I3D(folder / 'ours.pt', sha256='0' * 64)
    with pytest.raises(ValueError, match='resize'):
        I3D(None, resize='crop')
    with pytest.raises(ValueError, match='value_range'):
        I3D(None, value_range=(1, -1))

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pvvae_plugin.evaluation.extractors import C3D, build_extractor
from pvvae_plugin.evaluation.protocols import PROTOCOLS

CHANNELS = {
    'conv1a': (3, 64),
    'conv2a': (64, 128),
    'conv3a': (128, 256),
    'conv3b': (256, 256),
    'conv4a': (256, 512),
    'conv4b': (512, 512),
    'conv5a': (512, 512),
    'conv5b': (512, 512),
    'fc6': (8192, 4096),
    'fc7': (4096, 4096),
    'fc8': (4096, 101),
}


@pytest.fixture(scope='module')
def arrays():
    """Weights as Chainer names them, in float32."""
    draws = np.random.default_rng(0)
    arrays = {}
    for name, (fan_in, out) in CHANNELS.items():
        shape = (out, fan_in, 3, 3, 3) if name.startswith('conv') else (out, fan_in)
        weight = draws.standard_normal(shape, dtype=np.float32)
        weight *= np.sqrt(2 / np.prod(shape[1:])) * (0.02 if name == 'fc8' else 1)  # no class may be certain
        arrays[f'{name}/W'] = weight
        arrays[f'{name}/b'] = draws.uniform(-0.1, 0.1, out).astype(np.float32)
    return arrays


@pytest.fixture(scope='module')
def mean():
    return np.random.default_rng(1).uniform(80, 120, (3, 16, 128, 171))


@pytest.fixture(scope='module')
def files(tmp_path_factory, arrays, mean):
    folder = tmp_path_factory.mktemp('c3d')
    np.savez(folder / 'c3d.npz', **arrays)
    np.savez(folder / 'mean.npz', mean=mean)
    return folder / 'c3d.npz', folder / 'mean.npz'


@pytest.fixture(scope='module')
def extractor(files):
    return C3D(*files)


@pytest.fixture(scope='module')
def clip():
    return torch.rand(1, 3, 17, 60, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1


def corners_aligned(line_length, new_length):
    """Matrix of a linear interpolation with aligned corners."""
    matrix = torch.zeros(new_length, line_length, dtype=torch.float64)
    for i, position in enumerate(np.linspace(0, line_length - 1, new_length)):
        low = min(int(position), line_length - 2)
        matrix[i, low], matrix[i, low + 1] = low + 1 - position, position - low
    return matrix


def plain_c3d(arrays, mean, video):
    """Probabilities of a clip ``(1, 3, 16, H, W)``."""
    red, green, blue = (video[0, i].double() * 128 for i in range(3))
    rows, columns = corners_aligned(video.shape[3], 112), corners_aligned(video.shape[4], 112)
    frames = torch.stack([rows @ channel @ columns.T for channel in (blue, green, red)])  # (3, 16, 112, 112)
    x = (frames + 128 - torch.from_numpy(mean)[:, :, 8:120, 8:120]).float()[None]

    def conv(x, name):
        return torch.relu(
            F.conv3d(x, torch.from_numpy(arrays[f'{name}/W']), torch.from_numpy(arrays[f'{name}/b']), padding=1)
        )

    def pool(x, t):
        """Max pooling that uses every pixel: the far ends are padded with a value that is never the maximum."""
        lacking = [edge for size, k in zip(x.shape[:1:-1], (2, 2, t), strict=True) for edge in (0, -size % k)]
        x = F.pad(x, lacking, value=float('-inf'))
        n, c, t_in, h, w = x.shape
        return x.view(n, c, t_in // t, t, h // 2, 2, w // 2, 2).amax(dim=(3, 5, 7))

    x = pool(conv(x, 'conv1a'), 1)
    x = pool(conv(x, 'conv2a'), 2)
    x = pool(conv(conv(x, 'conv3a'), 'conv3b'), 2)
    x = pool(conv(conv(x, 'conv4a'), 'conv4b'), 2)
    x = pool(conv(conv(x, 'conv5a'), 'conv5b'), 2)
    assert x.shape == (1, 512, 1, 4, 4)
    x = x.reshape(1, -1)
    for name in ('fc6', 'fc7', 'fc8'):
        x = x @ torch.from_numpy(arrays[f'{name}/W']).T + torch.from_numpy(arrays[f'{name}/b'])
        x = x if name == 'fc8' else x.clamp(min=0)
    return x.exp() / x.exp().sum()


def test_every_layer_is_the_published_one(extractor, arrays, mean, clip):
    expected = plain_c3d(arrays, mean, clip[:, :, :16])
    assert 0.02 < expected.max() < 0.9
    probabilities = extractor(clip[:, :, :16])
    assert probabilities.shape == (1, 101)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=1e-3)
    # only the first 16 frames are used
    assert torch.equal(extractor(clip), probabilities)


def test_what_it_is(extractor, clip):
    assert extractor.is_classifier
    assert extractor.feature_dim == 101
    with pytest.raises(ValueError, match='at least 16 frames, got 15'):
        extractor(clip[:, :, :15])
    record = extractor.record()
    assert record['max_frames'] == 16
    assert record['weights']['file'] == 'c3d.npz'
    assert record['weights']['mean']['file'] == 'mean.npz'
    assert record['weights']['sha256'] != record['weights']['mean']['sha256']
    assert build_extractor(extractor, PROTOCOLS['paper']) is extractor


def test_a_mean_with_a_leading_dimension(tmp_path, mean, extractor):
    from pvvae_plugin.evaluation.extractors.c3d import _load_mean

    np.savez(tmp_path / 'mean.npz', mean=mean[None])
    assert torch.equal(128 - _load_mean(tmp_path / 'mean.npz')[:, :, 8:120, 8:120], extractor.offset)


def test_wrong_files(tmp_path, files, arrays, mean, monkeypatch):
    few = {name: arrays[name] for name in arrays if not name.startswith('fc')}
    np.savez(tmp_path / 'few.npz', **{**few, 'conv1a/W': arrays['conv1a/W'][:, :1], 'fc8/b': arrays['fc8/b']})
    with pytest.raises(ValueError, match=r'few.npz .*5 missing \(fc6/W, fc6/b, fc7/W\); 1 of another shape \(conv1a/W'):
        C3D(tmp_path / 'few.npz', files[1])
    np.savez(tmp_path / 'objects.npz', **{**few, 'fc6/W': np.array([print], dtype=object)})
    with pytest.raises(ValueError, match='objects.npz cannot be read'):
        C3D(tmp_path / 'objects.npz', files[1])
    (tmp_path / 'page.npz').write_text('<html>')
    with pytest.raises(ValueError, match='page.npz cannot be read'):
        C3D(tmp_path / 'page.npz', files[1])
    np.savez(tmp_path / 'other.npz', mean=mean[:, :8])
    with pytest.raises(ValueError, match=r'other.npz .*mean \(3, 8, 128, 171\) instead of \(3, 16, 128, 171\)'):
        C3D(files[0], tmp_path / 'other.npz')
    with pytest.raises(ValueError, match='sha256'):
        C3D(*files, sha256='0' * 64)
    monkeypatch.delenv('PVVAE_WEIGHTS', raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='(?s)conv3d_deepnetA_ucf.npz.*TGANv2'):
        C3D()
    with pytest.raises(FileNotFoundError, match='(?s)extractor.mean.*mean2.npz'):
        C3D(files[0])

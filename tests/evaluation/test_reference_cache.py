"""Cached features of real clips: keyed by all settings, never stale, and validated when read."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_extractors import Statistics

from pvvae_plugin.datasets import VideoDataset
from pvvae_plugin.datasets.errors import ClipError
from pvvae_plugin.evaluation import FVD, resolve_protocol
from pvvae_plugin.evaluation.extractors import FeatureExtractor
from pvvae_plugin.evaluation.reference import Reference
from pvvae_plugin.evaluation.video_features import VideoFeatures

FRAMES = 5
PROTOCOL = {'base': 'paper', 'num_frames': FRAMES, 'num_samples': 12, 'real_clip': 'first'}


class Gain(FeatureExtractor):
    """Extractor whose record omits its argument."""

    name, feature_dim = 'gain', 3

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def features(self, video):
        return self.gain * video.mean((2, 3, 4))

    def preprocessing(self):
        return {}


class Other(Gain):
    def features(self, video):
        return video.std((2, 3, 4))


def write_array(path, seed):
    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 200, (30, 1, 1, 1, 3))
    np.save(path, (colors + rng.integers(0, 40, (30, FRAMES, 6, 6, 3))).astype(np.uint8))


@pytest.fixture
def real(tmp_path):
    write_array(tmp_path / 'real.npy', 0)
    return tmp_path / 'real.npy'


def reference(real, tmp_path):
    data = {'type': 'VideoArrayDataset', 'data_root': str(real)}
    return {'dataset': data, 'num_workers': 0, 'cache_dir': str(tmp_path / 'cache')}


def measure(*metrics):
    evaluator = Evaluator(list(metrics))
    generator = torch.Generator().manual_seed(9)
    evaluator.process([{'index': i, 'generated': torch.rand(3, FRAMES, 6, 6, generator=generator)} for i in range(12)])
    return evaluator.evaluate(12)


def cache_file(tmp_path):
    (file,) = (tmp_path / 'cache').glob('*.safetensors')
    return file


def test_extractors_that_say_the_same_of_themselves_share_nothing(real, tmp_path):
    configs = [{'type': Gain, 'gain': 1.0}, {'type': Gain, 'gain': 10.0}, {'type': Other, 'gain': 1.0}]
    alone = [
        measure(FVD(c, PROTOCOL, reference(real, tmp_path / str(i))))['gen/FVD5_12'] for i, c in enumerate(configs)
    ]
    assert alone[1] == pytest.approx(100 * alone[0], rel=1e-4)
    shared = reference(real, tmp_path)
    together = measure(*(FVD(c, PROTOCOL, shared, prefix=str(i)) for i, c in enumerate(configs)))
    assert [together[f'{i}/FVD5_12'] for i in range(3)] == pytest.approx(alone, rel=1e-9)


def test_an_extractor_must_have_a_name():
    class Nameless(Gain):
        name = ''

    with pytest.raises(ValueError, match='Nameless must set name'):
        FVD({'type': Nameless, 'gain': 1.0}, 'paper')


def test_an_extractor_must_say_what_it_does_to_clips():
    class Silent(FeatureExtractor):
        name, feature_dim = 'silent', 3

    with pytest.raises(NotImplementedError, match=r'Silent must implement preprocessing\(\); docs/evaluate.md'):
        FVD(Silent(), {'base': 'paper', 'num_frames': FRAMES})
    with pytest.raises(NotImplementedError, match=r'Silent must implement features\(\)'):
        Silent()(torch.zeros(1, 3, 5, 8, 8))


def test_videos_that_changed_are_not_those_of_the_cache(real, tmp_path):
    first = measure(FVD(Statistics(), PROTOCOL, reference(real, tmp_path)))
    size = real.stat().st_size
    write_array(real, 1)
    os.utime(real, ns=(1, 1))
    assert real.stat().st_size == size
    changed = measure(FVD(Statistics(), PROTOCOL, reference(real, tmp_path)))
    assert changed['gen/FVD5_12'] != pytest.approx(first['gen/FVD5_12'], rel=1e-3)
    assert changed == measure(FVD(Statistics(), PROTOCOL, reference(real, tmp_path / 'fresh')))


@pytest.mark.parametrize('what', ['rows', 'type', 'dimension', 'nan', 'record', 'skipped', 'nested', 'garbage'])
def test_a_cache_that_holds_something_else_is_made_anew(what, real, tmp_path, log_lines):
    right = measure(FVD(Statistics(), PROTOCOL, reference(real, tmp_path)))
    file = cache_file(tmp_path)
    with safe_open(str(file), framework='pt') as content:
        tensors = {name: content.get_tensor(name) for name in ('reference', 'others')}
        record = json.loads(content.metadata()['pvvae_plugin'])
    changed = tensors['reference']
    if what == 'rows':
        tensors['reference'] = changed[:3].clone()
    elif what == 'type':
        tensors['reference'] = changed.half()
    elif what == 'dimension':
        tensors['reference'] = changed[:, :4].clone()
    elif what == 'nan':
        tensors['reference'][0, 0] = float('nan')
    elif what == 'record':
        record['listing_sha256'] = '0' * 64
    elif what == 'skipped':
        record['skipped'] = ['x']
    header = '[' * 100_000 if what == 'nested' else json.dumps(record)
    save_file(tensors, str(file), metadata={'pvvae_plugin': header})
    if what == 'garbage':
        file.write_bytes(b'x' * 999)
    assert measure(FVD(Statistics(), PROTOCOL, reference(real, tmp_path))) == right
    assert any('is damaged, computing it again' in line for line in log_lines)
    assert not list((tmp_path / 'cache').glob('.*'))


def test_a_folder_that_cannot_be_written_is_refused_at_once(real, tmp_path):
    (tmp_path / 'file').write_text('')
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(ValueError, match='reference.cache_dir .* choose another, or None'):
            FVD(Statistics(), PROTOCOL, {**reference(real, tmp_path), 'cache_dir': str(folder)})


def test_features_that_are_not_finite_are_refused_and_not_kept(real, tmp_path):
    class Infinite(Gain):
        def features(self, video):
            return super().features(video) / 0

    metric = FVD({'type': Infinite, 'gain': 1.0}, PROTOCOL, reference(real, tmp_path))
    with pytest.raises(ValueError, match='gain returned features that are not finite'):
        metric.prepare(FRAMES, 12)
    assert not list((tmp_path / 'cache').iterdir())


class FromFile(FeatureExtractor):
    """Extractor that reads weights and does not record them."""

    name, feature_dim = 'from_file', 3

    def __init__(self, path):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(float(path.read_text())))

    def features(self, video):
        return self.scale * video.mean((2, 3, 4))

    def preprocessing(self):
        return {}


@pytest.mark.parametrize(
    ('extractor', 'protocol'),
    [
        (lambda t: Gain(2.0), {}),
        (lambda t: Other(1.0), {}),
        (lambda t: {'type': FromFile, 'path': t / 'weights.txt'}, {}),
        (lambda t: Gain(1.0), {'num_samples': 11}),
        (lambda t: Gain(1.0), {'num_frames': 4}),
        (lambda t: Gain(1.0), {'real_clip': 'middle'}),
        (lambda t: Gain(1.0), {'frame_interval': 2, 'num_frames': 2}),
        (lambda t: Gain(1.0), {'eight_bit': 'truncate'}),
    ],
)
def test_every_setting_is_part_of_the_key(extractor, protocol, real, tmp_path):
    def key(extractor, protocol):
        return FVD(extractor, {**PROTOCOL, **protocol}, reference(real, tmp_path)).reference._cache_file()

    keys = [key(Gain(1.0), {}), key(Gain(1.0), {})]
    for weights in '12':
        (tmp_path / 'weights.txt').write_text(weights)
        keys.append(key(extractor(tmp_path), protocol))
    changed = 1 + isinstance(extractor(tmp_path), dict)  # the file of weights was replaced
    assert len(set(keys)) == 1 + changed


def test_skipped_videos_are_tried_again(tmp_path, write_video, log_lines, monkeypatch):
    for i in range(6):
        write_video(tmp_path / 'real' / f'{i}.mp4', num_frames=FRAMES)
    data = {'type': 'VideoDataset', 'data_root': str(tmp_path / 'real')}
    config = {**reference(tmp_path, tmp_path), 'dataset': data, 'num_samples': 3}
    load_clip = VideoDataset.load_clip

    def without_a_decoder(self, info, rng):
        if info['path'].endswith('2.mp4'):
            raise ClipError(info['path'], 'no decoder')
        return load_clip(self, info, rng)

    def left_out():
        return Reference(VideoFeatures(Statistics(), resolve_protocol(PROTOCOL)), **config).get().left_out

    monkeypatch.setattr(VideoDataset, 'load_clip', without_a_decoder)
    assert [left_out(), left_out()] == [1, 1]
    assert sum('loaded features' in line for line in log_lines) == 1
    monkeypatch.undo()
    assert left_out() == 0
    assert any('2.mp4 was skipped but can be read now' in line for line in log_lines)

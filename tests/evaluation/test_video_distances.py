"""FVD, KVD and the Inception Score in a test run, compared with values computed from the features."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from tiny_extractors import Colors, Statistics

from pvvae_plugin.datasets import SyntheticVideoDataset
from pvvae_plugin.evaluation import FVD, KVD, ProxyKVD, VideoInceptionScore
from pvvae_plugin.evaluation.set_metric import check_distinct
from pvvae_plugin.structures import VideoDataSample

FRAMES, REAL = 5, {'type': 'SyntheticVideoDataset', 'length': 90, 'size': 16}
PROTOCOL = {'base': 'paper', 'num_frames': FRAMES, 'num_samples': 40}


def reference(tmp_path, **options):
    return {'dataset': REAL, 'cache_dir': str(tmp_path), 'num_workers': 0, **options}


def clip(index, num_frames=FRAMES):
    generator = torch.Generator().manual_seed(index)
    brightness = torch.rand(3, 1, 1, 1, generator=generator) - 0.5
    return (brightness + 0.3 * torch.randn(3, num_frames, 16, 16, generator=generator)).clamp(-1, 1)


def eight_bit(video):
    return ((video + 1) * 127.5).round() / 127.5 - 1


def samples(indices, **metainfo):
    made = []
    for index in map(int, indices):
        made.append(VideoDataSample(metainfo={'index': index, **metainfo}))
        made[-1].generated = clip(index)
    return made


def pair(index):
    sample = samples([index])[0]
    sample.video, sample.reconstruction = clip(index), clip(index) * 0.9
    return sample


def feed(metrics, batches, size):
    evaluator = Evaluator(metrics)
    for batch in batches:
        evaluator.process(batch)
    return evaluator.evaluate(size)


def features_of(extractor, clips):
    return extractor(torch.stack([eight_bit(video) for video in clips])).double()


def real_features(extractor, dataset_config=REAL, num=40):
    """Of the clips that a reference chooses, read one by one."""
    from pvvae_plugin.functional.keyed_random import numpy_rng

    options = {k: v for k, v in dataset_config.items() if k != 'type'}
    dataset = SyntheticVideoDataset(clip_len=FRAMES, test_mode=True, pipeline=[{'type': 'PackClip'}], **options)
    order = numpy_rng('real clips').permutation(len(dataset))
    clips = [dataset[int(i)]['inputs'].float() / 127.5 - 1 for i in order]
    return extractor(torch.stack(clips[:num])).double(), extractor(torch.stack(clips[num : 2 * num])).double()


def frechet(x, y):
    """Compute it with NumPy, from the eigenvalues of a general matrix."""
    x, y = x.numpy(), y.numpy()
    a, b = np.cov(x, rowvar=False, ddof=0), np.cov(y, rowvar=False, ddof=0)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0)).sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots


def mmd(x, y):
    def k(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def without_self(m):
        return (m.sum() - m.diagonal().sum()) / (len(m) * (len(m) - 1))

    return (without_self(k(x, x)) + without_self(k(y, y)) - 2 * k(x, y).mean()).item()


def test_values_names_and_floors(tmp_path):
    extractor = Statistics()
    metrics = [cls(extractor, PROTOCOL, reference(tmp_path)) for cls in (FVD, KVD)]
    found = feed(metrics, [samples(range(i, i + 8)) for i in range(0, 40, 8)], 40)
    made = features_of(Statistics(), [clip(i) for i in range(40)])
    real, others = real_features(Statistics())
    assert found['gen/FVD5_40'] == pytest.approx(frechet(made, real), rel=1e-5)
    assert found['gen/FVD5_40_floor'] == pytest.approx(frechet(real, others), rel=1e-4)
    assert found['gen/KVD5_40'] == pytest.approx(mmd(made, real), rel=1e-5)
    assert found['gen/KVD5_40_floor'] == pytest.approx(mmd(real, others), rel=1e-4, abs=1e-9)
    for name in ('gen/FVD5_40', 'gen/KVD5_40'):
        assert found[f'{name}_low'] < found[name] < found[f'{name}_high']
    assert found['gen/FVD5_40_unbiased'] < found['gen/FVD5_40']  # few samples bias it upwards


def test_one_pass_feeds_all_and_the_reference_is_made_once(tmp_path):
    extractor = Statistics()
    metrics = [cls(extractor, PROTOCOL, reference(tmp_path)) for cls in (FVD, KVD)]
    feed(metrics, [samples(range(40))], 40)
    assert extractor.num_clips == 40 + 80  # generated; reference and floor
    assert len(list(tmp_path.glob('*.safetensors'))) == 1
    # a later run with the same data, extractor and protocol reads the file
    later = Statistics()
    again = feed([FVD(later, PROTOCOL, reference(tmp_path))], [samples(range(40))], 40)
    assert later.num_clips == 40
    assert again['gen/FVD5_40_floor'] >= 0
    # other data does not
    other = Statistics()
    moved = {**reference(tmp_path), 'dataset': {**REAL, 'seed': 5}}
    feed([FVD(other, PROTOCOL, moved)], [samples(range(40))], 40)
    assert other.num_clips == 40 + 80


def test_a_damaged_cache_is_made_anew(tmp_path):
    first = feed([FVD(Statistics(), PROTOCOL, reference(tmp_path))], [samples(range(40))], 40)
    (file,) = tmp_path.glob('*.safetensors')
    file.write_bytes(file.read_bytes()[:100])
    assert feed([FVD(Statistics(), PROTOCOL, reference(tmp_path))], [samples(range(40))], 40) == first


def test_neither_order_nor_batches_matter(tmp_path):
    def measure(batches):
        metrics = [cls(Statistics(), PROTOCOL, reference(tmp_path)) for cls in (FVD, KVD)]
        metrics.append(VideoInceptionScore(Colors(), PROTOCOL))
        return feed(metrics, batches, 40)

    rng = np.random.default_rng(0)
    forwards = measure([samples(range(i, i + 5)) for i in range(0, 40, 5)])
    shuffled = measure([samples(part) for part in np.split(rng.permutation(40), [1, 3, 20])])
    assert forwards.keys() == shuffled.keys()
    for name, value in forwards.items():
        assert shuffled[name] == pytest.approx(value, rel=1e-6), name


def test_reconstructions_with_their_sources(tmp_path):
    batch = []
    for index in range(24):
        sample = VideoDataSample(metainfo={'path': str(index)})
        sample.video = clip(index)
        sample.reconstruction = (0.9 * clip(index)) + 0.05
        batch.append(sample)
    found = feed([FVD(Statistics(), PROTOCOL), KVD(Statistics(), PROTOCOL)], [batch[:7], batch[7:]], 24)
    made = features_of(Statistics(), [(0.9 * clip(i)) + 0.05 for i in range(24)])
    real = features_of(Statistics(), [clip(i) for i in range(24)])
    assert found['recon/rFVD5_24'] == pytest.approx(frechet(made, real), rel=1e-4)
    assert found['recon/rKVD5_24'] == pytest.approx(mmd(made, real), rel=1e-4)
    assert not any(name.endswith('floor') for name in found)


def test_padding_of_the_sampler_counts_once_and_unreadable_clips_not_at_all():
    """23 clips; the stream repeats the first, and one replaces a file that could not be read."""
    batch = []
    for index in [*range(23), 0]:
        sample = VideoDataSample(metainfo={'substituted_path': 'broken.mp4'} if index == 3 else {})
        sample.video, sample.reconstruction = clip(index), 0.8 * clip(index)
        batch.append(sample)
    metric = FVD(Statistics(), PROTOCOL)
    found = feed([metric], [batch[:10], batch[10:]], 23)
    kept = [i for i in range(23) if i != 3]
    expected = frechet(*(features_of(Statistics(), [s * clip(i) for i in kept]) for s in (0.8, 1.0)))
    assert found['recon/rFVD5_22'] == pytest.approx(expected, rel=1e-4)
    assert metric.records['recon/rFVD5_22']['left_out'] == 1


def test_a_metric_starts_anew_after_each_evaluation(tmp_path):
    metric = FVD(Statistics(), PROTOCOL, reference(tmp_path))
    first = feed([metric], [samples(range(40))], 40)
    assert feed([metric], [samples(range(40))], 40) == first


def test_inception_score_by_a_plain_loop(tmp_path):
    metric = VideoInceptionScore(Colors(), {**PROTOCOL, 'inception_splits': 4}, reference(tmp_path))
    found = feed([metric], [samples(range(40))], 40)
    rows = features_of(Colors(), [clip(i) for i in range(40)])
    scores = []
    for part in rows.split(10):
        marginal = part.mean(0)
        scores.append(math.exp((part * (part / marginal).log()).sum(1).mean()))
    assert found['gen/IS5_40'] == pytest.approx(np.mean(scores), rel=1e-5)
    assert found['gen/IS5_40_std'] == pytest.approx(np.std(scores), rel=1e-4)
    assert 1 <= found['gen/IS5_40_floor'] <= 3


def test_a_record_says_all_that_is_needed(tmp_path, log_lines):
    metric = FVD(Statistics(known_as=None), {**PROTOCOL, 'ddof': 1}, reference(tmp_path))
    feed([metric], [samples(range(30))], 30)
    record = json.loads(json.dumps(metric.records))['gen/FVD5_30']
    assert record['num_samples'] == 30 and record['num_real'] == 40
    assert record['protocol']['name'] == 'custom' and record['protocol']['ddof'] == 1
    assert record['extractor']['weights']['sha256'] == 'f' * 64
    assert record['reference']['dataset']['length'] == 90 and record['reference']['listing_sha256']
    assert record['floor'] == {
        'what': 'real against real',
        'value': pytest.approx(record['floor']['value']),
        'num_samples': 40,
    }
    said = ' '.join(record['warnings'])
    assert '30 clips, but the protocol' in said and 'compared with 40 real' in said and 'are not a known file' in said
    assert any('FVD5_30' in line and 'real against real' in line for line in log_lines)


def test_too_few_clips_are_said_or_refused(tmp_path):
    metric = FVD(Statistics(), PROTOCOL, reference(tmp_path))
    feed([metric], [samples(range(8))], 8)
    said = ' '.join(metric.records['gen/FVD5_8']['warnings'])
    assert 'do not determine a covariance' in said and 'no confidence interval' in said
    assert 'unbiased' not in metric.records['gen/FVD5_8']
    with pytest.raises(ValueError, match='at least 2 clips'):
        feed([FVD(Statistics(), PROTOCOL, reference(tmp_path))], [samples([0])], 1)


def test_the_floor_of_a_small_data_set_is_of_halves(tmp_path):
    small = {**reference(tmp_path), 'dataset': {**REAL, 'length': 30}}
    metric = FVD(Statistics(), PROTOCOL, small)
    feed([metric], [samples(range(40))], 40)
    assert metric.records['gen/FVD5_40']['floor']['num_samples'] == 15


def test_what_does_not_fit_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match='contradicts the protocol'):
        FVD(Statistics(), PROTOCOL, {**reference(tmp_path), 'dataset': {**REAL, 'clip_len': 9}})
    flipped = {**REAL, 'pipeline': [{'type': 'RandomFlipClip'}, {'type': 'PackClip'}]}
    with pytest.raises(ValueError, match='must not be augmented; remove RandomFlipClip'):
        FVD(Statistics(), PROTOCOL, {**reference(tmp_path), 'dataset': flipped})
    with pytest.raises(TypeError, match='nonsense'):
        FVD(Statistics(), PROTOCOL, reference(tmp_path, nonsense=1))
    with pytest.raises(ValueError, match="no protocol 'fvd'"):
        FVD(Statistics(), 'fvd', reference(tmp_path))
    with pytest.raises(ValueError, match='no extractor'):
        FVD({'type': 'I3DD'}, PROTOCOL)
    with pytest.raises(ValueError, match='at least 2 frames, got 1'):
        FVD(Statistics(), {**PROTOCOL, 'num_frames': 1})
    with pytest.raises(ValueError, match='class probabilities'):
        VideoInceptionScore(Statistics(), PROTOCOL)
    for paired in (FVD(Statistics(), PROTOCOL), ProxyKVD(PROTOCOL, appearance_size=32)):  # checked before training
        paired.check_clip((3, FRAMES, 8, 8))
        with pytest.raises(ValueError, match='clips have 4 frames, but the protocol .custom. needs 5'):
            paired.check_clip((3, 4, 8, 8))
    metric = FVD(Statistics(), PROTOCOL, reference(tmp_path))
    with pytest.raises(ValueError, match='clips have 4 frames, but the protocol .custom. needs 5'):
        metric.prepare(4, 40)
    with pytest.raises(KeyError, match="no field 'generated'"):
        metric.process(None, [{'video': clip(0)}])
    with pytest.raises(ValueError, match='not finite'):
        metric.process(None, [{'generated': clip(0) / 0}])


def test_numbers_of_one_name_are_refused_and_prefixes_tell_them_apart(tmp_path):
    same = [FVD(Statistics(), {**PROTOCOL, 'ddof': d}, reference(tmp_path)) for d in (0, 1)]
    with pytest.raises(ValueError, match='have the name gen/FVD for 5 frames; give each its own prefix'):
        check_distinct(same)
    apart = [FVD(Statistics(), {**PROTOCOL, 'ddof': d}, reference(tmp_path), prefix=f'd{d}') for d in (0, 1)]
    check_distinct([*apart, KVD(Statistics(), PROTOCOL, reference(tmp_path))])
    found = feed(apart, [samples(range(40))], 40)
    assert found['d1/FVD5_40'] > found['d0/FVD5_40']
    assert {name: r['protocol']['ddof'] for m in apart for name, r in m.records.items()} == {
        'd0/FVD5_40': 0,
        'd1/FVD5_40': 1,
    }


class Precision(Statistics):
    def features(self, video):
        self.seen = torch.get_float32_matmul_precision()
        return super().features(video)


def test_features_are_computed_in_full_float32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high')
    try:
        extractor = Precision()
        extractor(torch.stack([clip(0)]))
        assert (extractor.seen, torch.get_float32_matmul_precision()) == ('highest', 'high')
    finally:
        torch.set_float32_matmul_precision(before)


class FourFrames(Statistics):
    max_frames = 4


def test_names_have_the_frames_that_the_extractor_uses(tmp_path):
    five, four = (FVD(extractor, PROTOCOL) for extractor in (Statistics(), FourFrames()))
    check_distinct([five, four])
    found = feed([five, four], [[pair(index) for index in range(4)]], 4)
    assert {'recon/rFVD5_4', 'recon/rFVD4_4'} <= found.keys()
    with pytest.raises(ValueError, match='have the name recon/FVD for 4 frames'):
        check_distinct([four, FVD(Statistics(), {**PROTOCOL, 'num_frames': 4})])
    proxies = [ProxyKVD({**PROTOCOL, 'num_samples': n}, appearance_size=32) for n in (20, 40)]
    with pytest.raises(ValueError, match='have the name recon/proxy_appearance_kernel for 5 frames'):
        check_distinct(proxies)


def test_settings_of_real_clips_are_not_for_pairs(tmp_path):
    protocol = {**PROTOCOL, 'real_clip': 'middle'}
    with pytest.raises(ValueError, match="protocol.real_clip='middle' selects the real clips of a reference"):
        FVD(Statistics(), protocol)
    metrics = [FVD(Statistics(), PROTOCOL), FVD(Statistics(), protocol, reference(tmp_path))]
    feed(metrics, [[pair(index) for index in range(40)]], 40)
    paired, unpaired = (next(iter(metric.records.values()))['protocol'] for metric in metrics)
    assert (paired['real_clip'], paired['frame_interval'], unpaired['real_clip']) == (None, None, 'middle')


def test_too_few_clips_for_the_splits_are_refused_before_any_work(tmp_path):
    metric = VideoInceptionScore(Colors(), {**PROTOCOL, 'inception_splits': 10})
    with pytest.raises(ValueError, match='over 10 splits needs as many clips, got 9; use more'):
        metric.prepare(FRAMES, 9)
    with pytest.raises(ValueError, match='at least 2 clips, got 1'):
        FVD(Statistics(), PROTOCOL, reference(tmp_path)).prepare(FRAMES, 1)


def test_longer_clips_are_cut_and_sizes_may_differ(tmp_path):
    metric = KVD(Statistics(), PROTOCOL)
    cut, whole = [], []
    for index in range(6):
        video = clip(index, num_frames=9)[:, :, : 16 - 2 * (index % 2)]
        whole.append({'video': video, 'reconstruction': 0.5 * video})
        cut.append({'video': video[:, :5], 'reconstruction': 0.5 * video[:, :5]})
    assert feed([metric], [whole], 6) == feed([KVD(Statistics(), PROTOCOL)], [cut], 6)


def test_values_become_8_bit_as_the_protocol_says():
    level = torch.full((3, FRAMES, 4, 4), 100.6 / 127.5 - 1)  # between the values 100 and 101
    for how, value in (('round', 101), ('truncate', 100)):
        metric = FVD(Statistics(), {**PROTOCOL, 'eight_bit': how})
        features = metric.features.of_clips([level, (torch.full_like(level, 37) / 127.5) - 1])
        expected = [v / 127.5 - 1 for v in (value, 37)]  # what is 8-bit already stays
        assert features[:, 0].tolist() == pytest.approx(expected, abs=1e-6)

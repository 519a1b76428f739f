"""The examples of docs/data.md run."""

import re
from pathlib import Path

import numpy as np
from mmengine.config import Config

from pvvae_plugin import config_path
from pvvae_plugin.registry import DATASETS

DOCUMENT = Path(__file__).resolve().parents[2] / 'docs' / 'data.md'


def snippet(word: str) -> str:
    """The first Python example that has a word in it."""
    return next(text for text in re.findall(r'```python\n(.*?)```', DOCUMENT.read_text(), re.DOTALL) if word in text)


def test_a_config_whose_clips_are_weighted_by_motion(tmp_path):
    base = f'_base_ = {config_path("pvvae_demo.py")!r}\n\n'
    (tmp_path / 'weighted.py').write_text(base + snippet('MotionWeightedDataset'))
    cfg = Config.fromfile(tmp_path / 'weighted.py')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.candidates == 4 and len(dataset) == 100000
    assert sum(dataset[0]['data_samples'].observed_groups) in (1, 2, 3)


def test_own_data_set(tmp_path):
    code = snippet('NpyDataset')
    exec(compile(code, str(DOCUMENT), 'exec'), {})
    np.save(tmp_path / '3.npy', np.zeros((7, 4, 4, 3), np.uint8))
    config = {'type': 'NpyDataset', 'data_root': str(tmp_path), 'clip_len': 5, 'pipeline': [{'type': 'PackClip'}]}
    try:
        assert DATASETS.build(config)[3]['inputs'].shape == (3, 5, 4, 4)
    finally:
        for registry in (DATASETS, DATASETS.parent):
            registry.module_dict.pop('NpyDataset')


def test_a_config_of_several_folders(tmp_path, write_video, monkeypatch):
    for name in ('cooking/fry', 'sports/run'):
        write_video(tmp_path / 'data' / name / 'a.avi', fourcc='MJPG')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'several.py').write_text(
        f'_base_ = {config_path("pvvae_folder64.py")!r}\n\n' + snippet('ConcatDataset')
    )
    dataset = DATASETS.build(Config.fromfile(tmp_path / 'several.py').train_dataloader.dataset)
    assert len(dataset) == 2 and dataset[0]['inputs'].shape == (3, 17, 64, 64)

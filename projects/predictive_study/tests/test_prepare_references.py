"""Reconstructions of real clips that generated clips are compared with."""

from __future__ import annotations

import numpy as np
from mmengine.config import Config
from torch import nn

from projects.predictive_study import prepare_references
from pvvae_plugin.datasets import SyntheticVideoDataset
from pvvae_plugin.datasets.errors import ClipError


class OneBroken(SyntheticVideoDataset):
    def load_clip(self, info, rng):
        if '/000001_' in info['path']:
            raise ClipError(info['path'], 'damaged')
        return super().load_clip(info, rng)


def test_replacements_of_unreadable_clips_are_not_written(tmp_path, monkeypatch):
    reference = {'dataset': {'type': OneBroken, 'length': 4, 'size': 16}}
    metric = {'protocol': {'num_frames': 5, 'num_samples': 2}, 'reference': reference}
    cfg = Config({'test_evaluator': [metric], 'model': {'backbone': {}, 'backbone_checkpoint': ''}})
    monkeypatch.setattr(prepare_references.MODELS, 'build', lambda config: nn.Identity())
    monkeypatch.setattr(prepare_references, 'load_backbone', lambda vae, path: None)
    monkeypatch.setattr(prepare_references, 'reconstruct', lambda vae, video: video)
    prepare_references.write_reconstructions(cfg, tmp_path / 'made.npy')
    made = np.load(tmp_path / 'made.npy')
    assert made.shape[:2] == (3, 5) and made.dtype == np.uint8
    assert [path.name for path in tmp_path.glob('*made*')] == ['made.npy']

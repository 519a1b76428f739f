"""A project on top of pvvae_plugin: a dataset and a loss of its own, under a scope of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import Registry

import pvvae_plugin  # noqa: F401  (makes 'pvvae_plugin::' known to configs)
from pvvae_plugin.datasets import ClipDataset
from pvvae_plugin.models import PredictiveOutput, PredictiveReconLoss

DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='example_project')
MODELS = Registry('model', parent=ROOT_MODELS, scope='example_project')


@DATASETS.register_module()
class FallingBars(ClipDataset):
    """A white bar in each clip, falling at a speed of its own."""

    def __init__(self, length: int, size: int, **kwargs: Any) -> None:
        self.length, self.size = length, size
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        return [{'path': f'bar {number}', 'number': number} for number in range(self.length)]

    def load_clip(self, info: dict, rng: np.random.Generator) -> np.ndarray:
        start, speed = info['number'] % self.size, 1 + info['number'] % 3
        frames = np.zeros((self.clip_len, self.size, self.size, 3), np.uint8)
        for t in range(self.clip_len):
            frames[t, (start + speed * t) % self.size] = 255
        return frames


@MODELS.register_module()
class WithAbsoluteError(PredictiveReconLoss):
    """The predictive objective and the mean absolute error of the whole clip."""

    def __init__(self, abs_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.abs_weight = abs_weight

    def forward(self, output: PredictiveOutput, video: torch.Tensor) -> dict[str, torch.Tensor]:
        terms = super().forward(output, video)
        terms['loss_abs'] = self.abs_weight * (output.reconstruction - video).abs().mean()
        return terms

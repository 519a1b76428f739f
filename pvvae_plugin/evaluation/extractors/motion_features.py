"""Features of a classifier that was trained on the data at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from pvvae_plugin.registry import EXTRACTORS

from ..motion_classifier import SIDE, load_classifier
from ..weights import identify_weights
from .base import FeatureExtractor


@EXTRACTORS.register_module()
class MotionFeatures(FeatureExtractor):
    """Features of a small classifier of the data's own classes: the 128 before its last layer.

    Of motions that only these data have, networks trained on other videos know nothing. Distances compare clips of one
    data set by one file of weights.

    Args:
        weights: File that ``tools/analysis/train_classifier.py`` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds no such classifier.

    Example:
        >>> from pathlib import Path
        >>> from pvvae_plugin.evaluation.motion_classifier import MotionClassifier, save_classifier
        >>> from pvvae_plugin.registry import EXTRACTORS
        >>> classifier = MotionClassifier(num_classes=7)  # tools/analysis/train_classifier.py trains one
        >>> save_classifier(classifier, Path('classifier.pth'), digest='')
        >>> network = EXTRACTORS.build(dict(type='MotionFeatures', weights='classifier.pth'))
        >>> network(torch.zeros(1, 3, 9, 32, 32)).shape
        torch.Size([1, 128])
    """

    name = 'motion_classifier'

    def __init__(self, weights: str | os.PathLike) -> None:
        super().__init__()
        self.network = load_classifier(Path(weights))
        self.feature_dim = self.network.logits.in_features
        self.weights = identify_weights(Path(weights))
        self.eval().requires_grad_(False)

    def features(self, video: Tensor) -> Tensor:
        """``(N, 3, T, H, W)`` in [-1, 1] to ``(N, 128)``."""
        return self.network.embed(video)

    def preprocessing(self) -> dict[str, Any]:
        """Resizing and values."""
        return {'least_side': SIDE, 'resize': 'mean over squares', 'value_range': [-1, 1], 'channels': 'RGB'}

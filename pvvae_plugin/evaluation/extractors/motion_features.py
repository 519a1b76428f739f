"""Features of a classifier trained on the evaluated dataset."""

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
    """The 128 features before the last layer of a small classifier of the dataset's classes (ours).

    Networks trained on other videos may not recognize the motions of this dataset. Distances are comparable only for
    the same dataset and the same weights file.

    Args:
        weights: File written by ``tools/analysis/train_classifier.py``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged or not a classifier.

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
        """Compute features ``(N, 128)`` of clips ``(N, 3, T, H, W)`` in [-1, 1]."""
        return self.network.embed(video)

    def preprocessing(self) -> dict[str, Any]:
        """Return the resizing and value range."""
        return {'least_side': SIDE, 'resize': 'mean over squares', 'value_range': [-1, 1], 'channels': 'RGB'}

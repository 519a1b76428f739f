"""C3D fine-tuned on UCF101, the classifier of the Inception Score of videos."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvvae_plugin.functional.clip_resize import resize_frames
from pvvae_plugin.registry import EXTRACTORS
from pvvae_plugin.safe_globals import why_no_array

from ..weights import check_shapes, find_weights, identify_weights
from .base import FeatureExtractor

INPUT_SIZE = 112
NUM_FRAMES = 16
NUM_CLASSES = 101
MEAN_SHAPE = (3, NUM_FRAMES, 128, 171)
# Window of the mean clip: rows and columns 8 to 119.
MEAN_WINDOW = slice(8, 8 + INPUT_SIZE)

# Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015, figure 3.
# Convolutions of 3 x 3 x 3 by their channels, pools by their windows; ReLU after each convolution.
LAYERS: dict[str, int | tuple[int, int, int]] = {
    'conv1a': 64,
    'pool1': (1, 2, 2),  # (64, 16, 56, 56)
    'conv2a': 128,
    'pool2': (2, 2, 2),  # (128, 8, 28, 28)
    'conv3a': 256,
    'conv3b': 256,
    'pool3': (2, 2, 2),  # (256, 4, 14, 14)
    'conv4a': 512,
    'conv4b': 512,
    'pool4': (2, 2, 2),  # (512, 2, 7, 7)
    'conv5a': 512,
    'conv5b': 512,
    'pool5': (2, 2, 2),  # (512, 1, 4, 4)
}
LINEAR = {'fc6': 4096, 'fc7': 4096, 'fc8': NUM_CLASSES}


def build_network() -> nn.Sequential:
    """Build the network on the meta device; it maps ``(N, 3, 16, 112, 112)`` to logits ``(N, 101)``."""
    network, channels = nn.Sequential(), 3
    with torch.device('meta'):
        for name, layer in LAYERS.items():
            if isinstance(layer, tuple):
                # Rounds up (7 pixels become 4), like TGANv2's Chainer code.
                network.add_module(name, nn.MaxPool3d(layer, ceil_mode=True))
                continue
            network.add_module(name, nn.Conv3d(channels, layer, kernel_size=3, padding=1))
            network.add_module(f'{name}_relu', nn.ReLU(inplace=True))
            channels = layer
        network.add_module('flatten', nn.Flatten())
        channels *= 4 * 4
        for name, width in LINEAR.items():
            network.add_module(name, nn.Linear(channels, width))
            if name != 'fc8':
                network.add_module(f'{name}_relu', nn.ReLU(inplace=True))
            channels = width
    return network


@EXTRACTORS.register_module()
class C3D(FeatureExtractor):
    """Probabilities of the 101 classes of UCF101, from C3D as TGANv2 uses it for the Inception Score.

    Saito et al., "Train Sparsely, Generate Densely", IJCV 2020, and its code. Only the first 16 frames are used; using
    those of a 17-frame clip is ours. Frames are resized to 112 x 112 with aligned corners and converted to BGR in
    [0, 256]; then the mean clip is subtracted.

    Args:
        weights: Chainer's ``.npz``. A path, or a name in the folder ``PVVAE_WEIGHTS``, see :func:`find_weights`.
        mean: ``.npz`` with the mean clip ``mean``, ``(3, 16, 128, 171)`` in BGR; found like ``weights``.
        sha256: Required SHA-256 of ``weights``; None accepts any.

    Attributes:
        is_classifier (bool): True: features are class probabilities.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is for another network or has a different SHA-256.

    Example:
        >>> # Needs the published weights, see docs/evaluate.md.
        >>> from pvvae_plugin.registry import EXTRACTORS
        >>> c3d = EXTRACTORS.build(dict(type='C3D', weights='weights/conv3d_deepnetA_ucf.npz'))  # doctest: +SKIP
        >>> c3d(torch.zeros(1, 3, 16, 64, 64)).sum(dim=1)  # class probabilities  # doctest: +SKIP
        tensor([1.])
    """

    name = 'c3d'
    feature_dim = NUM_CLASSES
    min_frames = NUM_FRAMES
    max_frames = NUM_FRAMES
    is_classifier = True

    def __init__(
        self,
        weights: str | Path = 'weights/conv3d_deepnetA_ucf.npz',
        mean: str | Path = 'weights/mean2.npz',
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        weights = find_weights(weights, ('conv3d_deepnetA_ucf.npz',))
        mean = find_weights(mean, ('mean2.npz',), option='extractor.mean')
        self.weights = {**identify_weights(weights, sha256), 'mean': identify_weights(mean)}
        self.network = build_network()
        names = {_npz_name(key): key for key in self.network.state_dict()}  # conv1a/W: conv1a.weight
        shapes = {name: self.network.get_parameter(key).shape for name, key in names.items()}
        arrays = _load_npz(weights, names)
        check_shapes(weights, shapes, {name: array.shape for name, array in arrays.items()})
        state = {names[name]: torch.from_numpy(array).float() for name, array in arrays.items()}
        self.network.load_state_dict(state, assign=True)
        # Maps [-128, 128] to [0, 256] and subtracts the mean: (3, 16, 112, 112)
        self.register_buffer('offset', 128 - _load_mean(mean)[:, :, MEAN_WINDOW, MEAN_WINDOW], persistent=False)

    def features(self, video: Tensor) -> Tensor:
        """Compute probabilities ``(N, 101)`` of clips ``(N, 3, 16, H, W)`` in [-1, 1]."""
        bgr = video.flip(1) * 128
        x = resize_frames(bgr, INPUT_SIZE, INPUT_SIZE, align_corners=True) + self.offset
        return F.softmax(self.network(x), dim=1)

    def preprocessing(self) -> dict[str, Any]:
        """Return the resizing, value range and mean window."""
        return {
            'size': INPUT_SIZE,
            'resize': 'stretch',
            'interpolation': 'bilinear, corners aligned, no antialiasing',
            'value_range': [0, 256],
            'channels': 'BGR',
            'mean': f'rows and columns {MEAN_WINDOW.start} to {MEAN_WINDOW.stop - 1} of the mean clip',
        }


def _npz_name(key: str) -> str:
    layer, part = key.split('.')
    return f'{layer}/{"W" if part == "weight" else "b"}'


def _load_npz(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Load the named arrays that exist in an ``.npz``. Never loads pickled objects, which could run code.

    Raises:
        ValueError: If the file is not an ``.npz``.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} cannot be read as an .npz of named arrays: {why_no_array(error)}') from error


def _load_mean(path: Path) -> Tensor:
    """Load the mean clip ``(3, 16, 128, 171)``."""
    arrays = _load_npz(path, ['mean'])
    if 'mean' in arrays and arrays['mean'].shape == (1, *MEAN_SHAPE):
        arrays['mean'] = arrays['mean'][0]
    check_shapes(path, {'mean': MEAN_SHAPE}, {name: array.shape for name, array in arrays.items()})
    return torch.from_numpy(arrays['mean']).float()

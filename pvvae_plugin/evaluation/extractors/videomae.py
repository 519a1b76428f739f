"""VideoMAE features, computed with the package ``transformers``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from pvvae_plugin.files import file_sha256, read_json
from pvvae_plugin.functional.clip_resize import resize_clip
from pvvae_plugin.registry import EXTRACTORS

from ..weights import find_weights, identify_weights
from .base import FeatureExtractor

# ImageNet's values, the default if the folder has no preprocessor_config.json.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@EXTRACTORS.register_module()
class VideoMAE(FeatureExtractor):
    """Last hidden state of a VideoMAE encoder, averaged over all tokens (ours).

    Tong et al., "VideoMAE", NeurIPS 2022. Ge et al., "On the Content Bias in Frechet Video Distance", CVPR 2024, find
    that distances of such features react to motion, while those of I3D react mostly to single frames. Distances are
    comparable only for the same weights. Frames are stretched to the encoder's square input (ours; it was trained on
    crops).

    Args:
        path: Folder in the format of transformers: ``config.json``, ``model.safetensors`` and optionally
            ``preprocessor_config.json``. A path, or a name in the folder ``PVVAE_WEIGHTS``, see :func:`find_weights`.
            Nothing is downloaded or unpickled.
        sha256: Required SHA-256 of ``model.safetensors``; None accepts any.

    Raises:
        FileNotFoundError: If the folder or one of its files does not exist.
        ImportError: If transformers is not installed.
        ValueError: If the weights are for another network or have a different SHA-256.

    Example:
        >>> # Needs pip install "pvvae_plugin[videomae]" and the published weights, see docs/evaluate.md.
        >>> from pvvae_plugin.registry import EXTRACTORS
        >>> network = EXTRACTORS.build(dict(type='VideoMAE', path='weights/videomae-base'))  # doctest: +SKIP
        >>> network(torch.zeros(1, 3, 16, 224, 224)).shape  # doctest: +SKIP
        torch.Size([1, 768])
    """

    name = 'videomae'

    def __init__(self, path: str | Path = 'weights/videomae-base', sha256: str | None = None) -> None:
        super().__init__()
        folder = find_weights(path, ('videomae-base',), option='extractor.path', folder=True)
        for file in ('config.json', 'model.safetensors'):
            if not (folder / file).is_file():
                raise FileNotFoundError(
                    f'{folder} has no {file}; extractor.path must be a folder written by save_pretrained of '
                    'transformers (.bin weights are not loaded, because they can run code)'
                )
        weights = identify_weights(folder / 'model.safetensors', sha256)
        self.weights = {**weights, 'config_sha256': file_sha256(folder / 'config.json')}
        self.network = _load(folder)
        config = self.network.config
        self.feature_dim = config.hidden_size
        # The position embeddings fix the number of frames.
        self.min_frames = self.max_frames = config.num_frames
        self.size = config.image_size
        mean, std = _normalization(folder / 'preprocessor_config.json')
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1, 1), persistent=False)

    def features(self, video: Tensor) -> Tensor:
        """Compute features ``(N, D)`` of clips ``(N, 3, num_frames, H, W)`` in [-1, 1]."""
        x = (resize_clip(video, self.size) + 1) / 2
        x = ((x - self.mean) / self.std).transpose(1, 2)  # (N, T, 3, size, size)
        return self.network(pixel_values=x).last_hidden_state.mean(dim=1)

    def preprocessing(self) -> dict[str, Any]:
        """Return the resizing and normalization."""
        return {
            'size': self.size,
            'resize': 'stretch',
            'interpolation': 'bilinear, half-pixel centers, no antialiasing',
            'mean': self.mean.flatten().tolist(),
            'std': self.std.flatten().tolist(),
            'channels': 'RGB',
        }


def _load(folder: Path) -> torch.nn.Module:
    try:
        from transformers import VideoMAEModel
    except ImportError as error:
        raise ImportError(
            f'VideoMAE needs the package transformers ({error}); run: pip install "pvvae_plugin[videomae]"'
        ) from error
    try:
        # Weights of a decoder or classifier in the file are unexpected keys, which is fine.
        network, info = VideoMAEModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f'{folder} cannot be loaded as a VideoMAE: {error}') from error
    missing = sorted(info['missing_keys'])
    if missing:
        raise ValueError(f'{folder} lacks weights of a VideoMAE encoder: {len(missing)} ({", ".join(missing[:3])})')
    return network.eval()


def _normalization(path: Path) -> tuple[list[float], list[float]]:
    """Read the mean and standard deviation of RGB in [0, 1]."""
    config = read_json(path, 'what transformers saves with a VideoMAE') if path.is_file() else {}
    return config.get('image_mean', list(MEAN)), config.get('image_std', list(STD))

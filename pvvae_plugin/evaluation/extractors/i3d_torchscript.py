"""Inception-I3D as StyleGAN-V publishes it: a TorchScript program with its own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pvvae_plugin.registry import EXTRACTORS

from ..weights import PUBLISHED, find_weights, identify_weights
from .base import FeatureExtractor
from .i3d import NUM_CLASSES, check_input, i3d_input, input_record

PUBLISHED_NAME = 'i3d_torchscript.pt'


@EXTRACTORS.register_module()
class I3DTorchScript(FeatureExtractor):
    """The 400 logits of Inception-I3D, computed by the program in a TorchScript file.

    Of StyleGAN-V (CVPR 2022), and used by most who followed it. Resizing and scaling are done here, not in the program.

    ``torch.jit.load`` runs the code in the file. So only the file we know by its SHA-256 is loaded, and any other only
    where its own is stated: that says that its user knows what is in it.

    Args:
        weights: A path, or a name in the folder ``PVVAE_WEIGHTS``, see :func:`find_weights`.
        resize: To 224 x 224, ``'stretch'`` or ``'short-side-crop'``, see :func:`resize_clip`.
        value_range: What black and white become.
        sha256: What the file must be; None for the one that StyleGAN-V publishes.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If it is another file, no TorchScript, or an argument is not valid.

    Example:
        >>> # Needs the published file, see docs/evaluate.md.
        >>> from pvvae_plugin.registry import EXTRACTORS
        >>> i3d = EXTRACTORS.build(dict(type='I3DTorchScript', weights='weights/i3d_torchscript.pt'))  # doctest: +SKIP
        >>> i3d(torch.zeros(1, 3, 16, 64, 64)).shape  # doctest: +SKIP
        torch.Size([1, 400])
    """

    name = 'i3d_torchscript'
    feature_dim = NUM_CLASSES
    min_frames = 9
    protocol_fields = ('resize', 'value_range')

    def __init__(
        self,
        weights: str | Path = f'weights/{PUBLISHED_NAME}',
        resize: str = 'stretch',
        value_range: tuple[float, float] = (-1, 1),
        sha256: str | None = None,
    ) -> None:
        super().__init__()
        check_input(resize, value_range)
        self.resize, self.value_range = resize, tuple(value_range)
        path = find_weights(weights, (PUBLISHED_NAME,))
        self.weights = identify_weights(path, sha256)
        if sha256 is None and self.weights['known_as'] != PUBLISHED_NAME:
            published = PUBLISHED[PUBLISHED_NAME]
            raise ValueError(
                f'{path} is not loaded: a TorchScript file is a program, and loading runs it. Without extractor.sha256 '
                f'only the published one is taken ({published.where}), of sha256 {published.sha256}; this has '
                f'{self.weights["sha256"]}. If you trust it, give that as extractor.sha256'
            )
        try:
            self.network = torch.jit.load(str(path), map_location='cpu').eval()
        except RuntimeError as error:
            raise ValueError(f'{path} cannot be loaded as TorchScript: {str(error).strip().splitlines()[0]}') from error

    def features(self, video: Tensor) -> Tensor:
        """``(N, 3, T, H, W)`` in [-1, 1] to ``(N, 400)``."""
        x = i3d_input(video, self.resize, self.value_range).contiguous()
        features = self.network(x, rescale=False, resize=False, return_features=True)
        if features.shape != (len(video), NUM_CLASSES):
            raise ValueError(
                f'{self.weights["file"]} gives features of shape {tuple(features.shape)} for {len(video)} clips, not '
                f'{(len(video), NUM_CLASSES)}: it is another network than the I3D of FVD'
            )
        return features

    def preprocessing(self) -> dict[str, Any]:
        """Resizing and values."""
        return input_record(self.resize, self.value_range)

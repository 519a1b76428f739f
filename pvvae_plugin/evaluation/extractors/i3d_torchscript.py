"""Inception-I3D as published by StyleGAN-V: a TorchScript program that includes its weights."""

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
    """The 400 logits of Inception-I3D, computed by a TorchScript file.

    The file of StyleGAN-V (CVPR 2022), used by most later papers. Resizing and scaling are done here, not by the file.

    ``torch.jit.load`` runs the code in the file. By default only the published file is loaded, identified by its
    SHA-256. To load another file that you trust, pass its ``sha256``.

    Args:
        weights: A path, or a name in the folder ``PVVAE_WEIGHTS``, see :func:`find_weights`.
        resize: Resizing to 224 x 224, ``'stretch'`` or ``'short-side-crop'``, see :func:`resize_clip`.
        value_range: Network input values of black and white.
        sha256: Required SHA-256 of the file; None requires the file published by StyleGAN-V.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has a different SHA-256 or is not TorchScript, or an argument is invalid.

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
                f'{path} is not loaded: a TorchScript file is a program, and loading it would run its code. Its sha256 '
                f'is {self.weights["sha256"]}, expected {published.sha256} of the published file ({published.where}). '
                'Use that file, or set extractor.sha256 to the hash of this file if you trust it'
            )
        try:
            self.network = torch.jit.load(str(path), map_location='cpu').eval()
        except RuntimeError as error:
            raise ValueError(f'{path} cannot be loaded as TorchScript: {str(error).strip().splitlines()[0]}') from error

    def features(self, video: Tensor) -> Tensor:
        """Compute logits ``(N, 400)`` of clips ``(N, 3, T, H, W)`` in [-1, 1]."""
        x = i3d_input(video, self.resize, self.value_range).contiguous()
        features = self.network(x, rescale=False, resize=False, return_features=True)
        if features.shape != (len(video), NUM_CLASSES):
            raise ValueError(
                f'{self.weights["file"]} returns features of shape {tuple(features.shape)} for {len(video)} clips, '
                f'expected {(len(video), NUM_CLASSES)}; it is not the I3D of FVD'
            )
        return features

    def preprocessing(self) -> dict[str, Any]:
        """Return the resizing and value range."""
        return input_record(self.resize, self.value_range)

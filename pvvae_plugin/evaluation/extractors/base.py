"""Base class and builder of feature extractors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pvvae_plugin.registry import EXTRACTORS

from ..protocols import Protocol

EXAMPLE = 'docs/evaluate.md#custom-extractor shows an example'


class FeatureExtractor(nn.Module):
    """Frozen network that maps clips to features. Subclasses load weights from local files in ``__init__``.

    Attributes:
        name (str): Name in results.
        feature_dim (int): ``D``.
        min_frames (int): Minimum number of frames.
        max_frames (int | None): Number of frames used, from the start of the clip; None for all.
        protocol_fields (tuple[str, ...]): Arguments that default to the fields of the :class:`Protocol`.
        weights (dict | None): ``file``, ``sha256`` and ``known_as`` (None if the file is not a known one).
        built_from (dict | None): Class and arguments, if it was built from a config.

    Example:
        >>> from pvvae_plugin.evaluation.extractors import FeatureExtractor
        >>> class MeanColor(FeatureExtractor):
        ...     name, feature_dim = 'mean-color', 3
        ...     def features(self, video):  # (N, 3, T, H, W) -> (N, 3)
        ...         return video.mean(dim=(2, 3, 4))
        ...     def preprocessing(self):  # for the record of results
        ...         return {}
        >>> MeanColor()(torch.full((1, 3, 5, 8, 8), 0.5))
        tensor([[0.5000, 0.5000, 0.5000]])
    """

    name = ''
    feature_dim = 0
    min_frames = 1
    max_frames: int | None = None
    protocol_fields: tuple[str, ...] = ()
    weights: dict[str, Any] | None = None
    built_from: dict[str, Any] | None = None

    def forward(self, video: Tensor) -> Tensor:
        """Compute features of clips.

        Args:
            video: ``(N, 3, T, H, W)`` in [-1, 1], of any height and width. Resizing and scaling for the network happen
                here.

        Returns:
            float32 ``(N, D)``.

        Raises:
            ValueError: If the clips have fewer than ``min_frames`` frames.
        """
        self.check_frames(video.shape[2])
        cudnn = torch.backends.cudnn
        # Always full float32: TF32, the default of cuDNN and an option of matrix products, changes distances.
        exact = cudnn.flags(
            enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
        )
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision('highest')
        try:
            with torch.no_grad(), torch.autocast(video.device.type, enabled=False), exact:
                return self.features(video[:, :, : self.max_frames].float()).float()
        finally:
            torch.set_float32_matmul_precision(precision)

    def features(self, video: Tensor) -> Tensor:
        """Compute features as in :meth:`forward`, of clips that have been checked and cut."""
        raise NotImplementedError(f'{type(self).__name__} must implement features(); {EXAMPLE}')

    def preprocessing(self) -> dict[str, Any]:
        """Return the preprocessing of clips as plain values, for the record of results."""
        raise NotImplementedError(f'{type(self).__name__} must implement preprocessing(); {EXAMPLE}')

    def check_frames(self, num_frames: int) -> None:
        """Check that clips are long enough.

        Raises:
            ValueError: If ``num_frames`` is less than ``min_frames``.
        """
        if num_frames < self.min_frames:
            raise ValueError(
                f'{self.name} needs clips of at least {self.min_frames} frames, got {num_frames}; use longer clips'
            )

    def record(self) -> dict[str, Any]:
        """Return all settings that determine the features, as plain values."""
        return {
            'name': self.name,
            'weights': self.weights,
            'preprocessing': self.preprocessing(),
            'feature_dim': self.feature_dim,
            'max_frames': self.max_frames,
        }


def build_extractor(config: dict | FeatureExtractor, protocol: Protocol) -> FeatureExtractor:
    """Build an extractor from its config.

    Args:
        config: ``type`` and arguments, or an extractor.
        protocol: Provides the arguments in ``protocol_fields`` that ``config`` does not set.

    Returns:
        The extractor in evaluation mode, without gradients.

    Raises:
        FileNotFoundError: If the weights do not exist.
        ValueError: If the extractor is unknown or needs longer clips than the protocol's.

    Example:
        >>> from pvvae_plugin.evaluation import resolve_protocol
        >>> from pvvae_plugin.evaluation.extractors import build_extractor
        >>> extractor = build_extractor(dict(type='TransNetV2'), resolve_protocol('paper'))
        >>> extractor.name, extractor.feature_dim
        ('transnetv2', 1024)
    """
    if isinstance(config, FeatureExtractor):
        extractor = config
    else:
        config = dict(config)
        kind = config.pop('type')
        cls = EXTRACTORS.get(kind) if isinstance(kind, str) else kind
        if cls is None:
            raise ValueError(f'no extractor {kind!r}; choose from {", ".join(sorted(EXTRACTORS.module_dict))}')
        given = {field: getattr(protocol, field) for field in cls.protocol_fields}
        arguments = {**given, **config}
        extractor = cls(**arguments)
        extractor.built_from = {'type': f'{cls.__module__}.{cls.__qualname__}', **arguments}
    if not extractor.name or extractor.feature_dim < 1:
        raise ValueError(f'{type(extractor).__name__} must set name and feature_dim; results and caches use them')
    extractor.check_frames(protocol.num_frames)
    return extractor.eval().requires_grad_(False)

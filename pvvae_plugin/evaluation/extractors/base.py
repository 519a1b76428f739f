"""What every feature extractor is, and how one is built."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pvvae_plugin.registry import EXTRACTORS

from ..protocols import Protocol


class FeatureExtractor(nn.Module):
    """A frozen network from clips to features. Subclasses load weights from local files when they are built.

    Attributes:
        name (str): What results call it.
        feature_dim (int): ``D``.
        min_frames (int): Fewest frames it takes.
        max_frames (int | None): It sees the first so many; None for all.
        protocol_fields (tuple[str, ...]): Arguments that a :class:`Protocol` gives where the config does not.
        weights (dict | None): ``file``, ``sha256`` and ``known_as`` (None for a file unknown to us).
        built_from (dict | None): Class and arguments, where it was built from a config.

    Example:
        >>> from pvvae_plugin.evaluation.extractors import FeatureExtractor
        >>> class MeanColour(FeatureExtractor):
        ...     name, feature_dim = 'mean-colour', 3
        ...     def features(self, video):  # (N, 3, T, H, W) -> (N, 3)
        ...         return video.mean(dim=(2, 3, 4))
        ...     def preprocessing(self):  # for the record of results
        ...         return {}
        >>> MeanColour()(torch.full((1, 3, 5, 8, 8), 0.5))
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
        """Features of clips.

        Args:
            video: ``(N, 3, T, H, W)`` in [-1, 1], of any height and width; the network's own resizing and scaling is
                done here.

        Returns:
            float32 ``(N, D)``.

        Raises:
            ValueError: If the clips have fewer than ``min_frames`` frames.
        """
        self.check_frames(video.shape[2])
        cudnn = torch.backends.cudnn
        # In full float32 wherever it is called: TF32, which cuDNN takes by default, moves distances.
        exact = cudnn.flags(
            enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
        )
        with torch.no_grad(), torch.autocast(video.device.type, enabled=False), exact:
            return self.features(video[:, :, : self.max_frames].float()).float()

    def features(self, video: Tensor) -> Tensor:
        """As :meth:`forward`, of clips that have been checked and cut."""
        raise NotImplementedError

    def preprocessing(self) -> dict[str, Any]:
        """What is done to a clip before the network sees it, as plain values: part of what results say."""
        raise NotImplementedError

    def check_frames(self, num_frames: int) -> None:
        """Refuse clips that are too short.

        Raises:
            ValueError: If ``num_frames`` is less than ``min_frames``.
        """
        if num_frames < self.min_frames:
            raise ValueError(f'{self.name} needs clips of at least {self.min_frames} frames, got {num_frames}')

    def record(self) -> dict[str, Any]:
        """What its features follow from, as plain values."""
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
        config: ``type`` and arguments; an extractor stands for itself.
        protocol: Gives the arguments named in ``protocol_fields`` that ``config`` does not.

    Returns:
        In evaluation mode, without gradients.

    Raises:
        FileNotFoundError: If its weights are not there.
        ValueError: If there is no such extractor, or the protocol's clips are too short for it.

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
            raise ValueError(f'no extractor {kind!r}: there are {", ".join(sorted(EXTRACTORS.module_dict))}')
        given = {field: getattr(protocol, field) for field in cls.protocol_fields}
        arguments = {**given, **config}
        extractor = cls(**arguments)
        extractor.built_from = {'type': f'{cls.__module__}.{cls.__qualname__}', **arguments}
    if not extractor.name or extractor.feature_dim < 1:
        raise ValueError(
            f'{type(extractor).__name__} must set name and feature_dim: results and caches are named by it'
        )
    extractor.check_frames(protocol.num_frames)
    return extractor.eval().requires_grad_(False)

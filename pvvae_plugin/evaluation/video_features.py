"""Features of clips under a protocol, computed once for all metrics that want the same."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from mmengine.device import get_device
from torch import Tensor

from pvvae_plugin.datasets.latent_shards import config_sha256

from .extractors import FeatureExtractor, build_extractor
from .protocols import Protocol

# A value that is 8-bit already must survive truncation whatever floats made of it.
TRUNCATION_SLACK = 1e-3
# At once, before they are resized: a gigabyte of floats with their copies.
BATCH_VALUES = 1 << 26

_shared: MutableMapping[str, VideoFeatures] = weakref.WeakValueDictionary()


class VideoFeatures:
    """A feature extractor and what a protocol does to clips before it.

    Args:
        extractor: The network.
        protocol: The convention.

    Attributes:
        key (str): Digest of all that features follow from beside the clips.
    """

    def __init__(self, extractor: FeatureExtractor, protocol: Protocol) -> None:
        self.extractor = extractor
        self.protocol = protocol
        self._device: str | None = None
        # With class and arguments: a record that forgets one must not make two networks one.
        made = extractor.built_from or f'{type(extractor).__module__}.{type(extractor).__qualname__}'
        self.key = config_sha256({'num_frames': protocol.num_frames, 'made': made, **self.record()})

    def record(self) -> dict[str, Any]:
        """What features follow from beside the clips and their number of frames, as plain values."""
        return {**self.extractor.record(), 'eight_bit': self.protocol.eight_bit}

    def of_samples(self, samples: Sequence[MutableMapping[str, Any]], field: str) -> Tensor:
        """Features of a field of samples, which keep them for the next metric that asks.

        Args:
            samples: Each with a clip ``(3, T, H, W)`` in ``field``, uint8 or in [-1, 1].
            field: Such as ``'generated'``.

        Returns:
            float32 ``(N, D)``, on the CPU.

        Raises:
            KeyError: If a sample has no such field.
            ValueError: If a clip is too short, of another shape, or not finite.
        """
        memo = f'{field}/{self.key}'
        missing = [sample for sample in samples if memo not in sample]
        if missing:
            for sample in missing:
                if field not in sample:
                    raise KeyError(
                        f'a metric reads {field!r} of each sample, but there is only {", ".join(sorted(sample))}: a '
                        "generator's metrics need a GenerationLoop as test_cfg, those without a reference a VAE"
                    )
            computed = self.of_clips([sample[field] for sample in missing])
            for sample, features in zip(missing, computed, strict=True):
                sample[memo] = features
        return torch.stack([sample[memo] for sample in samples])

    def of_clips(self, clips: Sequence[Tensor]) -> Tensor:
        """Features of clips, each ``(3, T, H, W)``, uint8 or in [-1, 1]; neighbours of one size go together.

        Returns:
            float32 ``(N, D)``, on the CPU.

        Raises:
            ValueError: If a clip is too short, of another shape, or not finite, or a feature is not.
        """
        if self._device is None:
            self._device = get_device()
            self.extractor.to(self._device)
        features = torch.cat(
            [self.extractor(torch.stack([self._prepare(clip) for clip in batch])).cpu() for batch in _batches(clips)]
        )
        if not features.isfinite().all():
            raise ValueError(f'{self.extractor.name} gives features that are not finite: is it damaged, or the clip?')
        return features

    def check_frames(self, num_frames: int) -> None:
        """Refuse clips that are shorter than the protocol's.

        Raises:
            ValueError: If ``num_frames`` is too few.
        """
        protocol = self.protocol
        if num_frames < protocol.num_frames:
            raise ValueError(
                f'clips have {num_frames} frames, the protocol {protocol.name!r} compares {protocol.num_frames}: use '
                f'longer ones, or a protocol of your own, protocol=dict(base="paper", num_frames={num_frames}), whose '
                'numbers compare with none of another length'
            )

    def _prepare(self, clip: Tensor) -> Tensor:
        """The first frames, in [-1, 1], at the 256 values that an 8-bit file has."""
        wanted = self.protocol.num_frames
        if clip.dim() != 4 or clip.shape[0] != 3:
            raise ValueError(f'a clip must be (3, T, H, W), got {tuple(clip.shape)}')
        self.check_frames(clip.shape[1])
        clip = clip[:, :wanted].to(self._device)
        if clip.dtype != torch.uint8:
            if not clip.isfinite().all():
                raise ValueError('a clip is not finite')
            levels = (clip.float().clamp(-1, 1) + 1) * 127.5
            clip = levels.round() if self.protocol.eight_bit == 'round' else (levels + TRUNCATION_SLACK).floor()
        return clip.float() / 127.5 - 1


def _batches(clips: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one size, as many as :data:`BATCH_VALUES` allows."""
    for _, group in itertools.groupby(clips, key=lambda clip: clip.shape):
        alike = list(group)
        size = max(1, BATCH_VALUES // max(1, alike[0].numel()))
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def shared_features(extractor: Mapping | FeatureExtractor, protocol: Protocol) -> VideoFeatures:
    """The features of this extractor under this protocol, built once however many metrics ask.

    Args:
        extractor: Config, or the extractor itself.
        protocol: The convention.

    Raises:
        FileNotFoundError: If its weights are not there.
        ValueError: See :func:`build_extractor`.
    """
    asked = id(extractor) if isinstance(extractor, FeatureExtractor) else dict(extractor)
    key = config_sha256({'extractor': asked, 'protocol': protocol.record()})
    found = _shared.get(key)
    if found is None:
        _shared[key] = found = VideoFeatures(build_extractor(extractor, protocol), protocol)
    return found

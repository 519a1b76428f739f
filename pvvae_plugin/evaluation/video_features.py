"""Features of clips under a protocol, shared by all metrics with the same settings."""

from __future__ import annotations

import hashlib
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

# Values that are already 8-bit must survive truncation in spite of float errors.
TRUNCATION_SLACK = 1e-3
# Maximum values per batch, before resizing: about 1 GB of floats with their copies.
BATCH_VALUES = 1 << 26

_shared: MutableMapping[str, VideoFeatures] = weakref.WeakValueDictionary()


class VideoFeatures:
    """Feature extractor together with the protocol's preprocessing of clips.

    Args:
        extractor: The network.
        protocol: Evaluation protocol.

    Attributes:
        key (str): Digest of everything except the clips that determines the features.
    """

    def __init__(self, extractor: FeatureExtractor, protocol: Protocol) -> None:
        self.extractor = extractor
        self.protocol = protocol
        self._device: str | None = None
        # Includes class, arguments and weights, in case the record of two different networks is the same.
        made = extractor.built_from or {'type': f'{type(extractor).__module__}.{type(extractor).__qualname__}'}
        key = {'num_frames': protocol.num_frames, 'made': made, 'set': _plain(extractor), **self.record()}
        self.key = config_sha256({**key, 'tensors': _weights_sha256(extractor)})

    def record(self) -> dict[str, Any]:
        """Return all settings that determine the features, except the number of frames, as plain values."""
        return {**self.extractor.record(), 'eight_bit': self.protocol.eight_bit}

    def of_samples(self, samples: Sequence[MutableMapping[str, Any]], field: str) -> Tensor:
        """Compute features of the clips in ``field`` and store them in the samples for other metrics.

        Args:
            samples: Samples with a clip ``(3, T, H, W)`` in ``field``, uint8 or in [-1, 1].
            field: Name of the field, e.g. ``'generated'``.

        Returns:
            float32 ``(N, D)``, on the CPU.

        Raises:
            KeyError: If a sample does not have the field.
            ValueError: If a clip is too short, has a wrong shape, or is not finite.
        """
        memo = f'{field}/{self.key}'
        missing = [sample for sample in samples if memo not in sample]
        if missing:
            for sample in missing:
                if field not in sample:
                    raise KeyError(
                        f'a sample has no field {field!r}, only {", ".join(sorted(sample))}; metrics of a generator '
                        'need a GenerationLoop as test_cfg, metrics without a reference need a VAE'
                    )
            computed = self.of_clips([sample[field] for sample in missing])
            for sample, features in zip(missing, computed, strict=True):
                sample[memo] = features
        return torch.stack([sample[memo] for sample in samples])

    def of_clips(self, clips: Sequence[Tensor]) -> Tensor:
        """Compute features of clips ``(3, T, H, W)``, uint8 or in [-1, 1]. Successive clips are batched if sizes match.

        Returns:
            float32 ``(N, D)``, on the CPU.

        Raises:
            ValueError: If a clip is too short, has a wrong shape, or is not finite, or if a feature is not finite.
        """
        if self._device is None:
            self._device = get_device()
            self.extractor.to(self._device)
        features = torch.cat(
            [self.extractor(torch.stack([self._prepare(clip) for clip in batch])).cpu() for batch in _batches(clips)]
        )
        if not features.isfinite().all():
            raise ValueError(
                f'{self.extractor.name} returned features that are not finite; check its weights and the clips'
            )
        return features

    def check_frames(self, num_frames: int) -> None:
        """Check that clips have at least the protocol's number of frames.

        Raises:
            ValueError: If ``num_frames`` is too small.
        """
        protocol = self.protocol
        if num_frames < protocol.num_frames:
            raise ValueError(
                f'clips have {num_frames} frames, but the protocol {protocol.name!r} needs {protocol.num_frames}; use '
                f'longer clips, or set protocol=dict(base="paper", num_frames={num_frames}), whose values are '
                'comparable only at this length'
            )

    def _prepare(self, clip: Tensor) -> Tensor:
        """Cut a clip to the protocol's frames and quantize it to 256 levels in [-1, 1]."""
        wanted = self.protocol.num_frames
        if clip.dim() != 4 or clip.shape[0] != 3:
            raise ValueError(f'a clip must be (3, T, H, W), got {tuple(clip.shape)}')
        self.check_frames(clip.shape[1])
        clip = clip[:, :wanted].to(self._device)
        if clip.dtype != torch.uint8:
            if not clip.isfinite().all():
                raise ValueError('a clip has values that are not finite; check the model that made it')
            levels = (clip.float().clamp(-1, 1) + 1) * 127.5
            clip = levels.round() if self.protocol.eight_bit == 'round' else (levels + TRUNCATION_SLACK).floor()
        return clip.float() / 127.5 - 1


def _batches(clips: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield batches of successive equally sized clips, with at most :data:`BATCH_VALUES` values."""
    for _, group in itertools.groupby(clips, key=lambda clip: clip.shape):
        alike = list(group)
        size = max(1, BATCH_VALUES // max(1, alike[0].numel()))
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def _plain(extractor: FeatureExtractor) -> dict[str, Any]:
    """Return the attributes with plain values, such as the arguments of an extractor that was built in Python."""
    plain = (bool, int, float, str, tuple, list)
    return {k: v for k, v in vars(extractor).items() if isinstance(v, plain) and not k.startswith('_')}


def _weights_sha256(extractor: FeatureExtractor) -> str:
    """Hash all parameters and buffers: the file of weights may have been replaced."""
    digest = hashlib.sha256()
    for name, tensor in itertools.chain(extractor.named_parameters(), extractor.named_buffers()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def shared_features(extractor: Mapping | FeatureExtractor, protocol: Protocol) -> VideoFeatures:
    """Return the features for an extractor and protocol; all metrics with the same settings share them.

    Args:
        extractor: Config, or the extractor itself.
        protocol: Evaluation protocol.

    Raises:
        FileNotFoundError: If the extractor's weights do not exist.
        ValueError: See :func:`build_extractor`.
    """
    asked = id(extractor) if isinstance(extractor, FeatureExtractor) else dict(extractor)
    key = config_sha256({'extractor': asked, 'protocol': protocol.record()})
    found = _shared.get(key)
    if found is None:
        _shared[key] = found = VideoFeatures(build_extractor(extractor, protocol), protocol)
    return found

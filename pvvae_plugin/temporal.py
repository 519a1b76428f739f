"""Conversion between frames and groups of a clip.

A clip of ``1 + k * p_t`` frames has ``G = 1 + k`` groups. Group 0 is frame 0, each later group has ``p_t`` frames, and
each group becomes one latent frame (paper, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def frames_to_groups(num_frames: int, temporal_ratio: int) -> int:
    """Return the number of groups of a clip.

    Args:
        num_frames: Frames of the clip, ``1 + k * temporal_ratio``.
        temporal_ratio: Temporal compression ratio ``p_t``.

    Raises:
        ValueError: If the clip has any other length.

    Example:
        >>> from pvvae_plugin.temporal import frames_to_groups
        >>> frames_to_groups(17, temporal_ratio=4)  # 1 + 4 * 4 frames
        5
    """
    if num_frames < 1 or (num_frames - 1) % temporal_ratio:
        below = max(1, 1 + (num_frames - 1) // temporal_ratio * temporal_ratio)
        nearest = f'{below} or {below + temporal_ratio}' if num_frames >= 1 else f'{below}'
        raise ValueError(
            f'a clip of {num_frames} frames does not split into groups: with a temporal ratio of {temporal_ratio} '
            f'the length must be 1 + k * {temporal_ratio}, e.g. {nearest}'
        )
    return 1 + (num_frames - 1) // temporal_ratio


def groups_to_frames(num_groups: int, temporal_ratio: int) -> int:
    """Return the number of frames of a clip with ``num_groups`` groups.

    Raises:
        ValueError: If ``num_groups`` is not positive.

    Example:
        >>> from pvvae_plugin.temporal import groups_to_frames
        >>> groups_to_frames(5, temporal_ratio=4)
        17
    """
    if num_groups < 1:
        raise ValueError(f'a clip has at least 1 group, got {num_groups}')
    return 1 + (num_groups - 1) * temporal_ratio


def most_dropped_groups(num_groups: int, max_drop_ratio: float) -> int:
    """Return the maximum number of dropped groups, ``floor((G - 1) * r)`` (paper, section 3).

    Args:
        num_groups: Groups ``G`` of the clip. Group 0 is never dropped.
        max_drop_ratio: ``r`` in [0, 1].

    Example:
        >>> from pvvae_plugin.temporal import most_dropped_groups
        >>> [most_dropped_groups(5, ratio) for ratio in (0.0, 0.5, 1.0)]  # group 0 always stays
        [0, 2, 4]
    """
    # Add a small number, because e.g. 0.29 * 100 is 28.999999999999996 in floating point.
    return math.floor((num_groups - 1) * max_drop_ratio + 1e-6)


@dataclass(frozen=True, eq=False)
class ObservedGroups:
    """Groups that the encoder may see, for each clip in a batch.

    Created once per step from values on the host. The mask is copied to the device, and nothing is read back.

    Attributes:
        patterns: One tuple of ``G`` bools per clip, on the host.
        mask: The same as a bool tensor ``(N, G)``, on the device.

    Example:
        >>> from pvvae_plugin.temporal import ObservedGroups
        >>> observed = ObservedGroups.of([1, 3], batch_size=2, num_groups=3)
        >>> observed.mask.tolist()
        [[True, False, False], [True, True, True]]
        >>> observed.frame_mask(num_frames=5).int().tolist()  # frame 0 forms group 0
        [[1, 0, 0, 0, 0], [1, 1, 1, 1, 1]]
    """

    patterns: tuple[tuple[bool, ...], ...]
    mask: Tensor

    @classmethod
    def of(
        cls, observed: Observed, batch_size: int, num_groups: int, device: torch.device | str | None = None
    ) -> ObservedGroups:
        """Create it from any accepted form.

        Args:
            observed: One of the following. An int: number of leading groups for all clips. A sequence or tensor
                ``(N,)``: number of leading groups per clip. A sequence or bool tensor ``(N, G)``: one pattern per
                clip. None: all groups. A tensor on a device is copied to the host, which synchronizes.
            batch_size: Number of clips ``N``.
            num_groups: Groups ``G`` per clip.
            device: Device of the mask.

        Raises:
            ValueError: If the shape is wrong, a number is not in ``1..G``, or a clip has no observed group.

        Example:
            >>> from pvvae_plugin.temporal import ObservedGroups
            >>> ObservedGroups.of(2, batch_size=2, num_groups=3).patterns  # a number of leading groups
            ((True, True, False), (True, True, False))
            >>> ObservedGroups.of([[True, False, True]], batch_size=1, num_groups=3).are_leading
            False
        """
        if isinstance(observed, ObservedGroups):
            return observed
        patterns = _patterns(observed, batch_size, num_groups)
        return cls(patterns, torch.tensor(patterns).to(device, non_blocking=True))  # a blocking copy synchronizes

    @property
    def num_groups(self) -> int:
        """Number of groups ``G`` per clip."""
        return len(self.patterns[0])

    @property
    def is_all(self) -> bool:
        """True if no clip drops a group."""
        return all(map(all, self.patterns))

    @property
    def extents(self) -> list[int]:
        """Number of groups up to the last observed one, per clip."""
        return [max(g for g, seen in enumerate(pattern, 1) if seen) for pattern in self.patterns]

    @property
    def are_leading(self) -> bool:
        """True if every clip drops groups at its end only."""
        return all(sum(pattern) == extent for pattern, extent in zip(self.patterns, self.extents, strict=True))

    def frame_mask(self, num_frames: int) -> Tensor:
        """Return a mask of the observed frames, bool ``(N, T)``.

        Args:
            num_frames: ``T = 1 + (G - 1) * p_t``.
        """
        ratio = max(1, (num_frames - 1) // max(1, self.num_groups - 1))
        return self.mask.repeat_interleave(ratio, dim=1)[:, ratio - 1 :]

    def hold_dropped(self, video: Tensor, temporal_ratio: int) -> Tensor:
        """Replace each dropped frame with the last observed frame before it, or with the first observed frame.

        Dropped frames are ignored, and the encoder still sees every observed frame at its time (ours).

        Args:
            video: ``(N, 3, T, H, W)``.
            temporal_ratio: ``p_t``.

        Example:
            >>> from pvvae_plugin.temporal import ObservedGroups
            >>> video = torch.arange(5.0).view(1, 1, 5, 1, 1)  # frames 0 to 4 in groups of 2
            >>> observed = ObservedGroups.of([[True, False, True]], batch_size=1, num_groups=3)
            >>> observed.hold_dropped(video, temporal_ratio=2).flatten().tolist()
            [0.0, 0.0, 0.0, 3.0, 4.0]
        """
        num_frames = groups_to_frames(self.num_groups, temporal_ratio)
        sources = []
        for pattern in self.patterns:
            seen = [t for t in range(num_frames) if pattern[-(-t // temporal_ratio)]]
            sources.append([max((s for s in seen if s <= t), default=seen[0]) for t in range(num_frames)])
        index = torch.tensor(sources).to(video.device, non_blocking=True)[:, None, :, None, None]
        return video.gather(2, index.expand_as(video))


Observed = int | Sequence[int] | Sequence[Sequence[bool]] | Tensor | ObservedGroups | None


def _patterns(observed: Observed, batch_size: int, num_groups: int) -> tuple[tuple[bool, ...], ...]:
    allowed = (
        f'an int in 1..{num_groups}, {batch_size} such ints, or {batch_size} patterns of {num_groups} bools (as a '
        'sequence or a tensor)'
    )
    values: Any = observed.tolist() if isinstance(observed, Tensor) else observed
    if values is None:
        values = num_groups
    if isinstance(values, int):
        values = [values] * batch_size
    elif isinstance(observed, Tensor) and observed.numel() == 1:
        values = values * batch_size
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != batch_size:
        raise ValueError(f'observed must be {allowed}, got {observed!r}')
    patterns = []
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= num_groups:
                raise ValueError(f'observed must be in 1..{num_groups} groups, got {value}; group 0 is never dropped')
            value = [group < value for group in range(num_groups)]
        elif not isinstance(value, Sequence) or not all(isinstance(seen, bool) for seen in value):
            raise ValueError(f'observed must be {allowed}, got {observed!r}')
        if len(value) != num_groups or not any(value):
            raise ValueError(
                f'the pattern {list(value)} of observed groups has {len(value)} entries, {sum(value)} True; it needs '
                f'{num_groups} entries with at least one True'
            )
        patterns.append(tuple(value))
    return tuple(patterns)

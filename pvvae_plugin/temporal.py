"""Frames and groups: the one place that knows that a clip has ``1 + k * p_t`` frames.

A clip of ``1 + k * p_t`` frames is cut into ``G = 1 + k`` groups: group 0 is frame 0 alone, each later group is
``p_t`` frames, and each group becomes one latent frame (paper, section 3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def frames_to_groups(num_frames: int, temporal_ratio: int) -> int:
    """Number of groups of a clip.

    Args:
        num_frames: Frames of the clip, ``1 + k * temporal_ratio``.
        temporal_ratio: Temporal compression ``p_t``.

    Raises:
        ValueError: If the clip has any other length.
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
    """Number of frames of a clip of ``num_groups`` groups.

    Raises:
        ValueError: If ``num_groups`` is not positive.
    """
    if num_groups < 1:
        raise ValueError(f'a clip has at least 1 group, got {num_groups}')
    return 1 + (num_groups - 1) * temporal_ratio


def most_dropped_groups(num_groups: int, max_drop_ratio: float) -> int:
    """How many groups of a clip are dropped at most: ``floor((G - 1) * r)`` (paper, section 3).

    Args:
        num_groups: Groups ``G`` of the clip, of which group 0 is never dropped.
        max_drop_ratio: ``r`` in [0, 1].
    """
    # The small addend: a ratio such as 0.29 of 100 groups is 28.999999999999996 in floating point.
    return math.floor((num_groups - 1) * max_drop_ratio + 1e-6)


def observed_counts(num_observed_groups: int | Tensor | None, batch_size: int, num_groups: int) -> list[int]:
    """Observed groups of each clip of a batch, checked.

    Args:
        num_observed_groups: One number for all clips, a LongTensor ``(N,)``, or None for "all observed".
        batch_size: Number of clips ``N``.
        num_groups: Groups ``G`` of each clip.

    Returns:
        ``N`` numbers in ``1..G``.

    Raises:
        ValueError: If the shape is wrong or a number lies outside ``1..G``.
    """
    if num_observed_groups is None:
        return [num_groups] * batch_size
    if isinstance(num_observed_groups, Tensor):
        if num_observed_groups.numel() not in (1, batch_size) or num_observed_groups.is_floating_point():
            raise ValueError(
                f'num_observed_groups must be an int or a LongTensor of shape ({batch_size},), got '
                f'{num_observed_groups.dtype} of shape {tuple(num_observed_groups.shape)}'
            )
        counts = num_observed_groups.flatten().tolist()
    elif isinstance(num_observed_groups, int):
        counts = [num_observed_groups]
    else:
        raise ValueError(f'num_observed_groups must be an int or a LongTensor, got {num_observed_groups!r}')
    counts = counts * batch_size if len(counts) == 1 else counts
    if min(counts) < 1 or max(counts) > num_groups:
        raise ValueError(
            f'num_observed_groups must lie in 1..{num_groups} (the first group is never dropped), got {counts}'
        )
    return counts


def observed_mask(counts: list[int], num_groups: int, device: torch.device | str | None = None) -> Tensor:
    """Which groups are observed: bool ``(N, G)``."""
    return torch.arange(num_groups, device=device)[None] < torch.tensor(counts, device=device)[:, None]


def observed_frame_mask(
    counts: list[int], num_groups: int, temporal_ratio: int, device: torch.device | str | None = None
) -> Tensor:
    """Which frames are observed: bool ``(N, T)`` with ``T = 1 + (G - 1) * p_t``."""
    frames = torch.arange(groups_to_frames(num_groups, temporal_ratio), device=device)
    ends = torch.tensor([groups_to_frames(g, temporal_ratio) for g in counts], device=device)
    return frames[None] < ends[:, None]

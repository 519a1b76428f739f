"""What a generator is asked to make, checked before the first network call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pvvae_plugin.functional import rectified_flow as flow
from pvvae_plugin.temporal import frames_to_groups

SOLVERS = {'euler': flow.euler, 'heun': flow.heun}

MAX_GUIDANCE = 1e3  # far above any that makes a video


def latent_shape(vae: nn.Module, num_frames: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Shape ``(C, t, h, w)`` of the latents of a video.

    Raises:
        ValueError: If the length or the size is none that the VAE accepts.
    """
    vae.check_video(torch.empty(1, 3, num_frames, *size, device='meta'))
    height, width = (side // vae.spatial_ratio for side in size)
    return vae.latent_channels, frames_to_groups(num_frames, vae.temporal_ratio), height, width


def check_sampler(steps: int, guidance: float, interval: tuple[float, float], shift: float, solver: str) -> None:
    """Refuse settings with which no video can be made.

    Raises:
        ValueError: If one of them is unknown or out of range.
    """
    if solver not in SOLVERS:
        raise ValueError(f'solver must be one of {", ".join(SOLVERS)}, got {solver!r}')
    if not abs(guidance) < MAX_GUIDANCE:
        raise ValueError(f'guidance must lie within +-{MAX_GUIDANCE:g} (1 for none), got {guidance}')
    low, high = interval
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(f'interval must be (low, high) with 0 <= low <= high <= 1, got {interval}')
    flow.time_grid(steps, shift)


def check_labels(labels: Sequence[int] | None, num: int, num_classes: int | None) -> list[int] | None:
    """``num`` classes as plain integers; None for an unconditional head.

    Raises:
        ValueError: If there are not as many, one is out of range, or labels are not wanted.
    """
    if num_classes is None:
        if labels is not None:
            raise ValueError('the head is unconditional: give no labels')
        return None
    labels = None if labels is None else [int(label) for label in labels]
    if labels is None or len(labels) != num or not all(0 <= label < num_classes for label in labels):
        raise ValueError(f'labels must be {num} classes in 0..{num_classes - 1}, got {labels}')
    return labels


def check_first_frames(
    first_frames: Tensor, vae: nn.Module, condition_prob: float, num: int, num_frames: int, size: tuple[int, int]
) -> None:
    """Refuse frames that cannot be continued.

    Args:
        first_frames: ``(n, 3, T', H, W)``.
        vae: The backbone.
        condition_prob: Of the model.
        num: Number of videos.
        num_frames: Frames of a video, given ones included.
        size: Height and width of a video.

    Raises:
        ValueError: If the model was not trained for it, or number, length or size do not fit.
    """
    if not condition_prob:
        raise ValueError(
            'this model cannot continue frames: it was trained with condition_prob=0. Train one with '
            'model.condition_prob=0.5, say'
        )
    if not 1 <= len(first_frames) <= num:
        raise ValueError(f'first_frames must hold 1..{num} clips for {num} videos, got {len(first_frames)}')
    vae.check_video(first_frames)
    given, height, width = first_frames.shape[2:]
    if given >= num_frames:
        raise ValueError(
            f'{given} frames are given of videos of {num_frames}: nothing is left to make; give fewer, or ask for '
            'longer videos'
        )
    if (height, width) != tuple(size):
        raise ValueError(f'first_frames are {height} x {width}, the videos {size[0]} x {size[1]}: resize them')


def check_finite(videos: Tensor, indices: Sequence[int]) -> None:
    """Refuse videos ``(N, 3, T, H, W)`` that are no pictures: a NaN would be written as black.

    Raises:
        FloatingPointError: If one is not finite, naming it.
    """
    finite = videos.flatten(1).isfinite().all(dim=1).tolist()
    if not all(finite):
        raise FloatingPointError(
            f'video {indices[finite.index(False)]} is not finite: the weights of the checkpoint have diverged, or the '
            'guidance is too high'
        )

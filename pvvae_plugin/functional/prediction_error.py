"""Squared errors of predicted frames, compared with two baselines without motion.

On nearly static video, a model that only copies frames has a small error. Each error is therefore reported with those
of two baselines: the last observed frame and the mean observed frame. All are given over all pixels and over moving
pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SquaredErrors(NamedTuple):
    """Sums of squared errors and numbers of values per clip: ``(N,)``, float64.

    Add sums and counts over clips before dividing, to get a mean or ratio over a dataset.

    Example:
        >>> from pvvae_plugin.functional.prediction_error import prediction_errors
        >>> video = torch.zeros(1, 3, 5, 8, 8)
        >>> errors = prediction_errors(video, video + 0.5, num_observed_frames=1)
        >>> errors.model / errors.count  # mean squared error per clip
        tensor([0.2500], dtype=torch.float64)
    """

    model: Tensor
    repeat: Tensor
    mean: Tensor
    count: Tensor
    moving_model: Tensor
    moving_repeat: Tensor
    moving_mean: Tensor
    moving_count: Tensor


def moving_pixels(video: Tensor, threshold: float) -> Tensor:
    """Return a mask of pixels that changed since the previous frame by more than ``threshold`` in any channel (ours).

    Args:
        video: ``(N, C, T, H, W)``.
        threshold: Threshold on the scale of ``video``.

    Returns:
        bool ``(N, 1, T - 1, H, W)``; entry ``t`` refers to frame ``t + 1``.

    Example:
        >>> from pvvae_plugin.functional.prediction_error import moving_pixels
        >>> video = torch.zeros(1, 3, 3, 1, 2)
        >>> video[:, :, 1, :, 0] = 0.5  # the left pixel changes and changes back
        >>> moving_pixels(video, threshold=0.1).int().tolist()
        [[[[[1, 0]], [[1, 0]]]]]
    """
    return (video[:, :, 1:] - video[:, :, :-1]).abs().amax(dim=1, keepdim=True) > threshold


def prediction_errors(
    truth: Tensor, prediction: Tensor, num_observed_frames: int, threshold: float = 0.1
) -> SquaredErrors:
    """Compute the squared errors of the predicted frames for the model and two baselines.

    The baselines repeat the last observed true frame, and the mean of the observed true frames.

    Args:
        truth: ``(N, C, T, H, W)`` in [-1, 1].
        prediction: Whole clips of the same shape; only frames from ``num_observed_frames`` on are used.
        num_observed_frames: Number of frames that the model saw, ``1..T-1``.
        threshold: A pixel moves if its true value changes from the previous frame by more than this in any channel.
            The default is 0.1 on [-1, 1], about 13 of 255 levels (ours).

    Returns:
        Sums and counts, see :class:`SquaredErrors`.

    Raises:
        ValueError: If the shapes differ, or the clip has no observed or no predicted frame.

    Example:
        >>> from pvvae_plugin.functional.prediction_error import prediction_errors
        >>> truth = torch.linspace(-1, 1, 5).view(1, 1, 5, 1, 1).expand(1, 3, 5, 8, 8)  # brightens by 0.5 per frame
        >>> errors = prediction_errors(truth, truth, num_observed_frames=4)
        >>> errors.model.item(), (errors.repeat / errors.count).item()
        (0.0, 0.25)
    """
    if truth.shape != prediction.shape or truth.dim() != 5:
        raise ValueError(
            f'truth and prediction must have the same shape (N, C, T, H, W), got {tuple(truth.shape)} and '
            f'{tuple(prediction.shape)}'
        )
    num_frames = truth.shape[2]
    if not 1 <= num_observed_frames < num_frames:
        raise ValueError(
            f'num_observed_frames must be in 1..{num_frames - 1} for a clip of {num_frames} frames, got '
            f'{num_observed_frames}'
        )
    truth = truth.double()
    observed, target = truth[:, :, :num_observed_frames], truth[:, :, num_observed_frames:]
    moving = moving_pixels(truth[:, :, num_observed_frames - 1 :], threshold)  # (N, 1, T - n, H, W)

    guesses = (
        prediction[:, :, num_observed_frames:].double(),
        observed[:, :, -1:],
        observed.mean(dim=2, keepdim=True),
    )
    # (N, 1, T - n, H, W) each; the mask does not depend on the channel, so sum channels first
    errors = [(guess - target).square().sum(dim=1, keepdim=True) for guess in guesses]
    sums = [error.flatten(1).sum(dim=1) for error in errors]
    moving_sums = [torch.where(moving, error, 0.0).flatten(1).sum(dim=1) for error in errors]
    count = sums[0].new_full((len(truth),), target[0].numel())
    moving_count = moving.flatten(1).sum(dim=1).double() * truth.shape[1]
    return SquaredErrors(*sums, count, *moving_sums, moving_count)

"""PSNR and SSIM of videos, one value per frame."""

from __future__ import annotations

import torch
from torch import Tensor

# Identical frames have an infinite PSNR, which would make every mean infinite. The error is floored at this fraction of
# the squared range, which gives 100 dB, far above any lossy model.
MIN_RELATIVE_MSE = 1e-10

WINDOW_SIZE = 11
WINDOW_SIGMA = 1.5


def mse_per_frame(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared error per frame, over channels and pixels.

    Args:
        a: Video ``(N, C, T, H, W)``.
        b: Video of the same shape.

    Returns:
        ``(N, T)``, float64.

    Raises:
        ValueError: If the shapes differ or are not five-dimensional.

    Example:
        >>> from pvvae_plugin.functional.image_quality import mse_per_frame
        >>> black, gray = torch.zeros(1, 3, 2, 16, 16), torch.full((1, 3, 2, 16, 16), 0.5)
        >>> mse_per_frame(black, gray).tolist()
        [[0.25, 0.25]]
    """
    _check_pair(a, b)
    return (a.double() - b.double()).square().mean(dim=(1, 3, 4))


def psnr(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """Return the peak signal-to-noise ratio per frame, in dB.

    The mean squared error is floored at ``1e-10 * data_range**2``, so identical frames give 100 dB (ours).

    Args:
        a: Video ``(N, C, T, H, W)``.
        b: Video of the same shape.
        data_range: Largest possible value minus the smallest: 1 for [0, 1], 2 for [-1, 1].

    Returns:
        ``(N, T)``, float64.

    Raises:
        ValueError: If the shapes differ, are not five-dimensional, or ``data_range`` is not positive.

    Example:
        >>> from pvvae_plugin.functional.image_quality import psnr
        >>> black, gray = torch.zeros(1, 3, 2, 16, 16), torch.full((1, 3, 2, 16, 16), 0.1)
        >>> psnr(black, gray, data_range=1.0).round(decimals=4).tolist()  # -10 log10(0.1^2)
        [[20.0, 20.0]]
        >>> psnr(black, black, data_range=1.0).tolist()  # infinite without the floor
        [[100.0, 100.0]]
    """
    _check_range(data_range)
    relative = mse_per_frame(a, b) / data_range**2
    return -10 * relative.clamp(min=MIN_RELATIVE_MSE).log10()


def ssim(a: Tensor, b: Tensor, data_range: float) -> Tensor:
    """Return the structural similarity per frame, averaged over the channels.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    2004: 11 x 11 Gaussian window of sigma 1.5 without padding, K1 = 0.01, K2 = 0.03, biased covariances. Computed in
    float64, because the variances are differences of nearly equal numbers.

    SSIM compares mean intensities and therefore depends on the zero point. Use values that start at 0, e.g. [0, 1], to
    get results comparable to the literature. Results on [-1, 1] differ.

    Args:
        a: Video ``(N, C, T, H, W)``.
        b: Video of the same shape.
        data_range: Largest possible value minus the smallest.

    Returns:
        ``(N, T)``, float64.

    Raises:
        ValueError: If the shapes differ, are not five-dimensional, the frames are smaller than the window, or
            ``data_range`` is not positive.

    Example:
        >>> from pvvae_plugin.functional.image_quality import ssim
        >>> noise = torch.rand(1, 3, 1, 16, 16)
        >>> ssim(noise, noise, data_range=1.0).round(decimals=6).item()
        1.0
    """
    _check_pair(a, b)
    _check_range(data_range)
    n, c, t, h, w = a.shape
    if min(h, w) < WINDOW_SIZE:
        raise ValueError(
            f'SSIM needs frames of at least {WINDOW_SIZE} x {WINDOW_SIZE} pixels (the size of its window), got '
            f'{h} x {w}; evaluate larger frames'
        )
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    values = torch.empty(n, t, dtype=torch.float64, device=a.device)
    for i in range(n):  # one clip at a time: five filtered maps in float64 take 10 times the memory of the clip
        x, y = (v[i].double().transpose(0, 1).reshape(t * c, h, w) for v in (a, b))
        mean_x, mean_y = _blur(x), _blur(y)
        var_x = _blur(x * x) - mean_x**2
        var_y = _blur(y * y) - mean_y**2
        cov = _blur(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        structure = (2 * cov + c2) / (var_x + var_y + c2)
        values[i] = (luminance * structure).reshape(t, c, -1).mean(dim=(1, 2))
    return values


def _blur(x: Tensor) -> Tensor:
    """Apply the Gaussian window to ``(B, H, W)`` without padding: ``(B, H - 10, W - 10)``."""
    # Two products with band matrices take half the time of a float64 convolution, which has no fast CPU kernel.
    return _band(x.shape[-2], x) @ x @ _band(x.shape[-1], x).T


def _band(size: int, like: Tensor) -> Tensor:
    """Return a matrix ``(size - 10, size)`` with the window's weights in columns ``i..i + 10`` of row ``i``."""
    offsets = (
        torch.arange(size, device=like.device)[None] - torch.arange(size - WINDOW_SIZE + 1, device=like.device)[:, None]
    )
    offsets = (offsets - WINDOW_SIZE // 2).to(like.dtype)
    weights = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2)) * (offsets.abs() <= WINDOW_SIZE // 2)
    return weights / weights.sum(dim=1, keepdim=True)


def _check_pair(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.dim() != 5:
        raise ValueError(
            f'both videos must have the same shape (N, C, T, H, W), got {tuple(a.shape)} and {tuple(b.shape)}'
        )


def _check_range(data_range: float) -> None:
    if not data_range > 0:
        raise ValueError(f'data_range must be positive (1 for [0, 1], 2 for [-1, 1]), got {data_range}')

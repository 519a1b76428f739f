"""Video corruptions of known type and strength, for testing the sensitivity of video metrics (ours).

Each function takes a clip ``(3, T, H, W)`` in [-1, 1], a strength, and a random generator on the CPU. It returns a new
clip in [-1, 1] with the same shape, dtype and device. Strength 0 changes nothing. The random draws do not depend on the
strength: with the same seed, a larger strength amplifies the same corruption.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def gaussian_blur(video: Tensor, sigma: float, rng: Generator | None = None) -> Tensor:
    """Blur every frame with a Gaussian truncated at three standard deviations, with replicated edges.

    Args:
        video: ``(3, T, H, W)`` in [-1, 1].
        sigma: Standard deviation, in pixels.
        rng: Not used.

    Raises:
        ValueError: If the clip has another shape, or ``sigma`` is negative.

    Example:
        >>> from pvvae_plugin.functional.video_damage import gaussian_blur
        >>> video = torch.zeros(3, 1, 9, 9)
        >>> video[:, :, 4, 4] = 1.0  # one bright pixel
        >>> blurred = gaussian_blur(video, sigma=1.0)
        >>> round(blurred[0].sum().item(), 4), bool(blurred.max() < 0.2)  # brightness is spread, not lost
        (1.0, True)
    """
    _check(video, 'sigma', sigma)
    if not sigma:
        return video.clone()
    radius = math.ceil(3 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=video.dtype, device=video.device)
    kernel = (-(offsets**2) / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    x = video.flatten(0, 1).unsqueeze(1)  # (3 * T, 1, H, W)
    x = F.pad(x, (radius,) * 4, mode='replicate')
    x = F.conv2d(F.conv2d(x, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return x.view_as(video).clamp(-1, 1)


def add_noise(video: Tensor, sigma: float, rng: Generator) -> Tensor:
    """Add Gaussian noise, independent per value, and clip to [-1, 1].

    Args:
        video: ``(3, T, H, W)`` in [-1, 1].
        sigma: Standard deviation, on the scale of 0 to 255.
        rng: Random generator on the CPU.

    Raises:
        ValueError: If the clip has another shape, or ``sigma`` is negative.

    Example:
        >>> from pvvae_plugin.functional.video_damage import add_noise
        >>> video = torch.zeros(3, 5, 32, 32)
        >>> noisy = add_noise(video, sigma=25.5, rng=torch.Generator().manual_seed(0))
        >>> round(noisy.std().item(), 2)  # 25.5 of 127.5
        0.2
    """
    _check(video, 'sigma', sigma)
    noise = torch.randn(video.shape, generator=rng, dtype=video.dtype).to(video.device)
    return (video + sigma / 127.5 * noise).clamp(-1, 1)


def shuffle_frames(video: Tensor, share: float, rng: Generator) -> Tensor:
    """Permute a random fraction of the frames along one random cycle. Every selected frame moves.

    Args:
        video: ``(3, T, H, W)`` in [-1, 1].
        share: Fraction from 0 to 1; any positive fraction moves at least two frames.
        rng: Random generator on the CPU.

    Raises:
        ValueError: If the clip has another shape, or ``share`` is not in [0, 1].

    Example:
        >>> from pvvae_plugin.functional.video_damage import shuffle_frames
        >>> video = torch.linspace(-1, 1, 5).view(1, 5, 1, 1).expand(3, 5, 8, 8)
        >>> shuffled = shuffle_frames(video, share=1.0, rng=torch.Generator().manual_seed(0))
        >>> bool((shuffled != video).all())  # every frame moves
        True
    """
    num_frames = _check(video, 'share', share, highest=1)
    order = torch.randperm(num_frames, generator=rng)
    moved = order[: min(num_frames, max(2, round(share * num_frames)))] if share else order[:0]
    source = torch.arange(num_frames)
    source[moved] = moved.roll(1)
    return video[:, source.to(video.device)]


def freeze_end(video: Tensor, share: float, rng: Generator | None = None) -> Tensor:
    """Freeze the end of a clip: the last frames repeat the frame before them. The first frame is always kept.

    Args:
        video: ``(3, T, H, W)`` in [-1, 1].
        share: Fraction of repeated frames, from 0 to 1.
        rng: Not used.

    Raises:
        ValueError: If the clip has another shape, or ``share`` is not in [0, 1].

    Example:
        >>> from pvvae_plugin.functional.video_damage import freeze_end
        >>> video = torch.tensor([-1.0, -0.5, 0.0, 0.5]).view(1, 4, 1, 1).expand(3, 4, 8, 8)
        >>> freeze_end(video, share=0.5)[0, :, 0, 0].tolist()
        [-1.0, -0.5, -0.5, -0.5]
    """
    num_frames = _check(video, 'share', share, highest=1)
    last = max(0, num_frames - 1 - round(share * num_frames))
    return video[:, torch.arange(num_frames, device=video.device).clamp(max=last)]


def flicker(video: Tensor, strength: float, rng: Generator) -> Tensor:
    """Multiply the brightness by a random factor per frame, and clip to white.

    Args:
        video: ``(3, T, H, W)`` in [-1, 1].
        strength: Strength from 0 to 1. Factors are uniform between ``1 - strength`` and ``1 + strength``.
        rng: Random generator on the CPU.

    Raises:
        ValueError: If the clip has another shape, or ``strength`` is not in [0, 1].

    Example:
        >>> from pvvae_plugin.functional.video_damage import flicker
        >>> flickering = flicker(torch.zeros(3, 9, 8, 8), strength=0.2, rng=torch.Generator().manual_seed(0))
        >>> bool((flickering.abs() <= 0.2001).all()), len(flickering[0, :, 0, 0].unique())
        (True, 9)
    """
    num_frames = _check(video, 'strength', strength, highest=1)
    if not strength:
        return video.clone()
    drawn = torch.rand(num_frames, generator=rng, dtype=video.dtype).to(video.device) * 2 - 1
    factor = (1 + strength * drawn).view(1, -1, 1, 1)
    return ((video + 1) * factor - 1).clamp(-1, 1)


def _check(video: Tensor, name: str, strength: float, highest: float = math.inf) -> int:
    """Check the arguments and return the number of frames."""
    if video.dim() != 4 or video.shape[0] != 3 or not video.is_floating_point():
        raise ValueError(f'video must be a float tensor (3, T, H, W), got {video.dtype} {tuple(video.shape)}')
    if not 0 <= strength <= highest:
        within = f'in [0, {highest:g}]' if math.isfinite(highest) else 'at least 0'
        raise ValueError(f'{name} must be {within}, got {strength!r}')
    return video.shape[1]

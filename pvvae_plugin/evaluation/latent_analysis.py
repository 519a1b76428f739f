"""Analysis of latents over time: pictures, and how latent change relates to motion in the clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pvvae_plugin.functional.latent_distance import channel_sums, latent_scale, latent_temporal_distances
from pvvae_plugin.functional.optical_flow import cell_means, optical_flow
from pvvae_plugin.functional.principal_components import principal_components, stretch
from pvvae_plugin.functional.rank_correlation import rank_correlation
from pvvae_plugin.models import VideoVAE
from pvvae_plugin.visualization import to_uint8
from pvvae_plugin.visualization.latent_strips import draw_latents


class ClipLatents(NamedTuple):
    """Encoded clip with its frames and optical flow.

    Attributes:
        frames: Last frame per group, uint8 ``(t, H, W, 3)``.
        latents: Mode of the posterior, not normalized, ``(C, t, h, w)``.
        posterior_variance: Mean posterior variance per channel, ``(C,)``, float64.
        flows: Optical flow from each of ``frames`` to the next, ``(t - 1, H, W, 2)`` in pixels.
        frozen: Latents of a clip that repeats the first frame, ``(C, t, h, w)``; None if not requested.
    """

    frames: np.ndarray
    latents: Tensor
    posterior_variance: Tensor
    flows: np.ndarray
    frozen: Tensor | None = None


class ClipChange(NamedTuple):
    """Measurements of a clip per latent cell; needs much less memory than its frames.

    Attributes:
        latents: As in :class:`ClipLatents`.
        posterior_variance: As in :class:`ClipLatents`.
        motion: Mean flow magnitude in each latent cell, ``(t - 1, h, w)`` in pixels.
        pixels: Mean absolute difference of the frames in each latent cell, ``(t - 1, h, w)`` in gray levels.
        frozen: As in :class:`ClipLatents`.
    """

    latents: Tensor
    posterior_variance: Tensor
    motion: Tensor
    pixels: Tensor
    frozen: Tensor | None = None


@torch.no_grad()
def encode_clip(vae: VideoVAE, video: Tensor, frozen: bool = False) -> ClipLatents:
    """Encode a clip and compute its optical flow.

    Args:
        vae: The VAE.
        video: ``(1, 3, T, H, W)`` in [-1, 1], at least two groups. Height and width are padded to multiples of the
            spatial ratio for the VAE.
        frozen: If True, also encode a clip that repeats the first frame ``T`` times. Its latents change without motion.
    """
    padded = vae.pad_sides(video).to(vae.last_layer.device)
    posterior = vae.encode(padded)
    still = vae.encode(padded[:, :, :1].expand_as(padded)).mode()[0].cpu() if frozen else None
    frames, ratio = to_uint8(video[0]), vae.temporal_ratio
    flows = np.stack([optical_flow(frames[t : t + ratio + 1]) for t in range(0, len(frames) - 1, ratio)])
    variance = posterior.logvar[0].double().exp().mean(dim=(1, 2, 3)).cpu()
    # frames 0, p_t, 2 p_t, ... are the last of their groups
    return ClipLatents(frames[::ratio], posterior.mode()[0].cpu(), variance, flows, still)


def write_strip(path: Path, clip: ClipLatents, spatial_ratio: int) -> None:
    """Write an image of a clip: its frames, principal components of its latents, and flow.

    Args:
        path: Image file to write.
        clip: The clip.
        spatial_ratio: ``p_s``.
    """
    c, t, h, w = clip.latents.shape
    found = principal_components(clip.latents.permute(1, 2, 3, 0).reshape(-1, c))
    components = stretch(found.scores).view(t, h, w, 3).numpy()
    strip = draw_latents(clip.frames, components, clip.flows, spatial_ratio, found.shares.tolist())
    Image.fromarray(strip).save(path, optimize=True)


def measure_change(clip: ClipLatents, spatial_ratio: int) -> ClipChange:
    """Measure motion and pixel change of a clip in each latent cell.

    Args:
        clip: The clip.
        spatial_ratio: ``p_s``.
    """
    motion = cell_means(torch.from_numpy(clip.flows).double().norm(dim=-1), spatial_ratio)
    difference = torch.from_numpy(clip.frames).double().diff(dim=0).abs().mean(dim=-1)
    return ClipChange(clip.latents, clip.posterior_variance, motion, cell_means(difference, spatial_ratio), clip.frozen)


def channel_statistics(clips: Sequence[ClipChange]) -> tuple[Tensor, Tensor]:
    """Compute the mean and deviation per channel of *sampled* latents, as a generator sees them: ``(C,)``, float64.

    The deviation includes the posterior variance. Without it, normalization would amplify channels of pure noise.
    """
    values = torch.cat([clip.latents.double().flatten(1) for clip in clips], dim=1)  # (C, positions)
    weights = torch.tensor([clip.latents[0].numel() for clip in clips], dtype=torch.float64)
    posterior = torch.stack([clip.posterior_variance for clip in clips], dim=1) @ weights / weights.sum()
    return values.mean(dim=1), (values.var(dim=1, correction=0) + posterior).sqrt()


def summarize(clips: Sequence[ClipChange]) -> tuple[dict[str, Any], Tensor]:
    """Summarize the measurements over clips.

    Args:
        clips: At least one clip; all must have the same number of latent frames.

    Returns:
        A record of plain numbers, and the distances ``(n,)`` between neighboring latents at the same position.
    """
    mean, std = channel_statistics(clips)
    shape = (-1, 1, 1, 1)

    def normalized(latents: Tensor) -> Tensor:
        return (latents.double() - mean.view(shape)) / std.clamp(min=1e-12).view(shape)

    scaled = [normalized(clip.latents) for clip in clips]
    curves = torch.stack([latent_temporal_distances(latents) for latents in scaled])  # (clips, t - 1)
    steps = [latents.diff(dim=1).norm(dim=0) for latents in scaled]  # (t - 1, h, w) each
    counts, sums, squares = zip(*map(channel_sums, scaled), strict=True)
    unrelated = latent_scale(sum(counts), sum(sums), sum(squares)).item()
    first = torch.cat([step.flatten() for step in steps])
    average = curves.mean(dim=0)
    heights, edges = np.histogram(first, bins=50)
    distances = {
        'normalized_by': 'mean and deviation of each channel over these clips, of sampled latents',
        'interval': list(range(1, curves.shape[1] + 1)),
        'mean': average.tolist(),
        'std_over_clips': curves.std(dim=0, correction=0).tolist(),
        'unrelated_latents': unrelated,
        'relative': [value / unrelated if unrelated else None for value in average.tolist()],
        'per_clip': curves.tolist(),
        'interval_1_percentiles': {str(q): float(np.percentile(first, q)) for q in (5, 25, 50, 75, 95)},
        'interval_1_histogram': {'edges': edges.tolist(), 'counts': heights.tolist()},
    }
    if all(clip.frozen is not None for clip in clips):
        still = torch.stack([latent_temporal_distances(normalized(clip.frozen)) for clip in clips]).mean(dim=0).tolist()
        distances['of_frozen_clips'] = {
            'mean': still,
            'relative': [value / unrelated if unrelated else None for value in still],
        }
    record = {
        'latent_temporal_distance': distances,
        'correlation': _correlations(clips, steps),
        'channels': {'mean': mean.tolist(), 'std': std.tolist()},
    }
    return record, first


def _correlations(clips: Sequence[ClipChange], steps: Sequence[Tensor]) -> dict[str, Any]:
    """Correlate motion in a latent cell with the change of the latent and of the pixels."""

    def flat(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.flatten() for part in parts])

    def correlate(first: Sequence[Tensor], second: Sequence[Tensor]) -> float | None:
        value = rank_correlation(flat(first), flat(second))
        return None if math.isnan(value) else value  # JSON has no NaN

    motion, pixels = [clip.motion for clip in clips], [clip.pixels for clip in clips]
    pairs = range(len(steps[0]))  # per pair, because causal latents drift in a clip's first groups even without motion
    return {
        'method': 'spearman',
        'why': 'flow magnitudes have a long tail and the relation is not linear; ranks are robust to both',
        'value': correlate(motion, steps),
        'of_pixels': correlate(motion, pixels),
        'num_cells': sum(part.numel() for part in motion),
        'per_pair': [correlate([part[t] for part in motion], [part[t] for part in steps]) for t in pairs],
        'per_clip': [correlate([one], [other]) for one, other in zip(motion, steps, strict=True)],
    }

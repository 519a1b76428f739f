"""PSNR, SSIM and LPIPS of reconstructed clips, averaged and per frame position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from pvvae_plugin.functional.conversion import clamp_colors
from pvvae_plugin.functional.image_quality import WINDOW_SIZE, psnr, ssim
from pvvae_plugin.registry import METRICS, MODELS
from pvvae_plugin.structures import SUBSTITUTED

from .substitutes import readable_results


@METRICS.register_module()
class VideoReconstruction(BaseMetric):
    """PSNR, SSIM and optionally LPIPS of ``reconstruction`` against ``video``.

    Reconstructions are clamped to [-1, 1] and both clips are mapped to [0, 1], so values correspond to 8-bit images
    without rounding. Values are computed per frame and averaged over all frames of all clips; PSNR is therefore a mean
    of decibels, not the decibels of a mean error.

    Results, with the prefix ``recon``:
        - ``psnr``, ``ssim``, ``lpips_vgg`` or ``lpips_alex``: means over all frames.
        - ``psnr_first``: mean PSNR of the first frames, which causal VAEs encode differently (reveals color shifts).
        - ``psnr_worst_frame``: PSNR of the frame position with the lowest mean.
        - ``psnr_per_frame`` and so on: list of means per frame position, rounded to 4 digits. Shorter clips count only
          for their own positions. MMEngine logs and dumps these lists but does not plot them.

    A reconstruction with values that are not finite makes the metrics NaN.
    Clips that replace an unreadable file (``substituted_path``) are skipped; the log reports how many.

    Args:
        lpips: Config of the :class:`LPIPS` module, e.g. ``dict(type='LPIPS', net='alex')``; None skips LPIPS.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Attributes:
        per_frame (dict[str, list[float]]): Unrounded per-frame curves of the last evaluation, on rank 0.

    Example:
        >>> from pvvae_plugin.registry import METRICS
        >>> metric = METRICS.build(dict(type='VideoReconstruction'))
        >>> video = torch.zeros(3, 5, 16, 16)
        >>> metric.process({}, [dict(video=video, reconstruction=video + 0.2)])  # 0.1 on the scale [0, 1]
        >>> metrics = metric.evaluate(size=1)
        >>> round(metrics['recon/psnr'], 3), metrics['recon/psnr_per_frame']
        (20.0, [20.0, 20.0, 20.0, 20.0, 20.0])
    """

    default_prefix = 'recon'
    fields = ('reconstruction', 'video')  # read from every sample

    def __init__(self, lpips: dict | None = None, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.lpips = None if lpips is None else MODELS.build(lpips)
        self.per_frame: dict[str, list[float]] = {}

    def check_clip(self, shape: Sequence[int]) -> None:
        """Check before a long evaluation that clips of shape ``(3, T, H, W)`` can be compared.

        Raises:
            ValueError: If frames are smaller than SSIM's window, or too small for LPIPS.
        """
        if min(shape[2:]) < WINDOW_SIZE:
            raise ValueError(
                f'VideoReconstruction computes SSIM, which needs frames of at least {WINDOW_SIZE} x {WINDOW_SIZE} '
                f'pixels, got {shape[2]} x {shape[3]}; use larger frames'
            )
        if hasattr(self.lpips, 'check_clip'):
            self.lpips.check_clip(shape)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append one entry per sample: its curves, or :data:`SUBSTITUTED`."""
        for sample in data_samples:
            self.results.append(SUBSTITUTED if sample.get('substituted_path') else self._curves(sample))

    def _curves(self, sample: dict) -> dict[str, list[float]]:
        video, reconstruction = sample['video'][None].float(), clamp_colors(sample['reconstruction'][None].float())
        # SSIM is not shift-invariant: published values use [0, 1]
        truth, output = (video.double() + 1) / 2, (reconstruction.double() + 1) / 2
        curves = {'psnr': psnr(output, truth, 1.0), 'ssim': ssim(output, truth, 1.0)}
        if self.lpips is not None:
            curves[f'lpips_{self.lpips.net}'] = self.lpips(reconstruction, video)
        return {name: values[0].tolist() for name, values in curves.items()}

    def compute_metrics(self, results: list) -> dict[str, float | list[float]]:
        """Compute the means over all frames, at the first and the worst position, and per frame position.

        Args:
            results: One entry per clip; :data:`SUBSTITUTED` marks a clip that replaced an unreadable one.
        """
        clips = readable_results('VideoReconstruction', results)
        self.per_frame = {}
        if not clips:
            return {}
        metrics: dict[str, Any] = {}
        for name in clips[0]:
            curves = [clip[name] for clip in clips]
            metrics[name] = _mean([value for curve in curves for value in curve])
            longest = max(len(curve) for curve in curves)
            self.per_frame[name] = [_mean([c[t] for c in curves if t < len(c)]) for t in range(longest)]
        metrics['psnr_first'] = self.per_frame['psnr'][0]
        metrics['psnr_worst_frame'] = min(self.per_frame['psnr'])
        metrics.update({f'{name}_per_frame': [round(v, 4) for v in c] for name, c in self.per_frame.items()})
        return metrics


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)

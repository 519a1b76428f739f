"""Frame rates of two sets of videos: at different rates, the same motion differs from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import Dataset

from pvvae_plugin.datasets.frame_rates import clip_rates

TOLERANCE = 0.06  # relative; a third of 25 fps is close enough to 8 fps


def frame_rates(dataset: Dataset) -> list[float]:
    """Return the frame rates of a dataset's videos, without repetitions, from at most 16 evenly spread files.

    Args:
        dataset: Videos; those of an array and images have no frame rate.

    Example:
        >>> from pvvae_plugin.evaluation.frame_rates import frame_rates
        >>> from pvvae_plugin.registry import DATASETS
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('videos/clip.webm', np.zeros((9, 32, 32, 3), np.uint8), fps=8)
        >>> frame_rates(DATASETS.build(dict(type='VideoDataset', data_root='videos', clip_len=9)))
        [8.0]
    """
    interval = getattr(dataset, 'frame_interval', 1)
    return sorted({round(rate * interval, 3) for rate in clip_rates(dataset).values()})


def rate_warning(real: Sequence[float], fake: Sequence[float], interval: int | None = 1) -> str | None:
    """Return a warning if the frame rates of two sets differ, or None. Unknown rates are not compared.

    Args:
        real: Frame rates of real videos or sources.
        fake: Frame rates of the videos that are compared with them.
        interval: Frame stride in real videos; None if it cannot be set, because pairs are compared.

    Example:
        >>> from pvvae_plugin.evaluation.frame_rates import rate_warning
        >>> rate_warning([25.0], [8.0], interval=3) is None, rate_warning([25.0], [])
        (True, None)
        >>> rate_warning([25.0], [8.0])[:46]
        'real videos have 25 fps and fake ones 8 fps: t'
    """
    if not real or not fake:
        return None
    stride = interval or 1
    slowest, fastest = min(min(real) / stride, *fake), max(max(real) / stride, *fake)
    if fastest <= slowest * (1 + TOLERANCE):
        return None
    texts = [', '.join(f'{rate:g}' for rate in rates) for rates in (real, fake)]
    used = f', of which every {stride}. frame is used,' if stride > 1 else ''
    ratio = round(real[0] / fake[0])
    remedy = f' or set --protocol-options frame_interval={ratio}' if interval and 1 < ratio != interval else ''
    return (
        f'real videos have {texts[0]} fps{used} and fake ones {texts[1]} fps: the same motion differs from frame to '
        f'frame, and so does every distance; compare videos of one frame rate{remedy}'
    )

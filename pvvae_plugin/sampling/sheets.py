"""Overview sheets of generated videos: a still sheet of strips and a playing grid."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pvvae_plugin.files import write_atomically
from pvvae_plugin.visualization.strips import draw_panels, draw_strip
from pvvae_plugin.visualization.video_files import write_gif, write_video

SHEET_ROWS = 16
GRID_PANELS = 64
GRID_WIDTH = 1200  # pixels for all clips of a row; larger clips are downscaled
SHEETS = ('sheet.png', 'grid.webm', 'grid.gif')


def choose_shown(labels: Sequence[int] | None, num: int, most: int) -> list[int]:
    """Choose up to ``most`` of ``num`` videos, balanced over classes and ordered by class.

    Args:
        labels: Class per video. None for an unconditional generator.
        num: Number of videos.
        most: Maximum number of videos to choose.

    Example:
        >>> from pvvae_plugin.sampling import choose_shown
        >>> choose_shown(labels=[0, 1, 0, 1, 0, 1], num=6, most=4)  # two of each class
        [0, 2, 1, 3]
    """
    if labels is None:
        return list(range(min(num, most)))
    seen: dict[int, int] = {}
    ranked = []
    for index, label in enumerate(labels):
        seen[label] = seen.get(label, 0) + 1
        ranked.append((seen[label], index))
    return sorted((index for _, index in sorted(ranked)[:most]), key=lambda index: (labels[index], index))


def write_sheets(
    folder: Path,
    clips: Mapping[int, np.ndarray],
    captions: Sequence[str],
    labels: Sequence[int] | None,
    num_given: int | None,
    fps: float,
) -> None:
    """Write ``sheet.png``, ``grid.webm`` and ``grid.gif``, grouped by class. Generated frames have an orange border.

    Args:
        folder: Output folder.
        clips: Dict from index to uint8 ``(T, H, W, 3)``, for the indices that :func:`choose_shown` returns for
            ``GRID_PANELS``.
        captions: One caption per video, shown or not.
        labels: Class of every video. None for an unconditional generator.
        num_given: Number of given (not generated) first frames. None draws no borders.
        fps: Frames per second.

    Example:
        >>> import os
        >>> from pathlib import Path
        >>> from pvvae_plugin.sampling import write_sheets
        >>> clips = {index: np.zeros((5, 32, 32, 3), np.uint8) for index in range(2)}
        >>> write_sheets(Path('.'), clips, captions=['run', 'jump'], labels=[0, 1], num_given=None, fps=8)
        >>> sorted(os.listdir())
        ['grid.gif', 'grid.webm', 'sheet.png']
    """
    rows = choose_shown(labels, len(captions), SHEET_ROWS)
    sheet = draw_strip([clips[i] for i in rows], [captions[i] for i in rows], num_given)
    png = io.BytesIO()
    Image.fromarray(sheet).save(png, 'PNG')
    write_atomically(folder / 'sheet.png', png.getvalue())
    shown = choose_shown(labels, len(captions), GRID_PANELS)
    columns = math.ceil(math.sqrt(len(shown)))
    panels = [_shrunk(clips[i], GRID_WIDTH // columns) for i in shown]
    grid = draw_panels(panels, [captions[i] for i in shown], num_given, columns)
    write_video(folder / 'grid.webm', grid, fps)
    write_gif(folder / 'grid.gif', grid, fps)


def _shrunk(clip: np.ndarray, width: int) -> np.ndarray:
    if clip.shape[2] <= width:
        return clip
    size = (width, round(clip.shape[1] * width / clip.shape[2]))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in clip])

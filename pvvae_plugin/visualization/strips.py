"""Clips as pictures: strips of frames for the page, panels side by side for animations."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

BACKGROUND = (255, 255, 255)
TEXT = (40, 40, 40)
PREDICTED = (230, 97, 1)  # orange, told from most footage and by colour-blind readers
OBSERVED = (190, 190, 190)

MIN_SIDE = 96  # frames with a shorter side are enlarged, as far as the strip stays within MAX_WIDTH
MAX_WIDTH = 2400
BORDER = 3
GAP = 2
FONT_SIZE = 15


def to_uint8(video: Tensor) -> np.ndarray:
    """Convert a clip to 8 bits: values are rounded, not truncated, and clipped to the range.

    Args:
        video: ``(3, T, H, W)`` in [-1, 1]; NaN becomes black.

    Returns:
        uint8 ``(T, H, W, 3)``.

    Raises:
        ValueError: If the shape is another.

    Example:
        >>> from pvvae_plugin.visualization import to_uint8
        >>> video = torch.tensor([-1.0, 0.0, 1.0, 5.0]).view(1, 4, 1, 1).expand(3, 4, 8, 8)
        >>> to_uint8(video)[:, 0, 0, 0].tolist()
        [0, 128, 255, 255]
    """
    if video.dim() != 4 or video.shape[0] != 3:
        raise ValueError(f'one clip of shape (3, T, H, W) is needed, got {tuple(video.shape)}')
    values = video.detach().float().nan_to_num(nan=-1.0).clamp(-1, 1)
    return ((values + 1) * 127.5).round().byte().permute(1, 2, 3, 0).cpu().numpy()


def draw_strip(
    rows: list[np.ndarray],
    captions: list[str] | None = None,
    num_observed: list[int | None] | int | None = None,
    scale: int | None = None,
) -> np.ndarray:
    """Draw clips in rows, frames side by side under their numbers; predicted frames have an orange border.

    Clips too long for a width of 2,400 pixels are thinned out evenly; the first and the last frame stay. The numbers
    above the columns count frames from 0 and tell which are shown.

    Args:
        rows: Clips of one shape, uint8 ``(T, H, W, 3)``.
        captions: One text a row, put at its left.
        num_observed: Frames that the model saw, one number for all rows or one a row; later frames count as predicted.
            None: nothing is.
        scale: Enlargement of the frames, nearest neighbour. None: the smallest that makes a short side of 96 pixels,
            or less where the strip would become too wide.

    Returns:
        uint8 ``(H', W', 3)``.

    Raises:
        ValueError: If shapes or counts do not fit.

    Example:
        >>> from pvvae_plugin.visualization import draw_strip
        >>> clip = np.zeros((5, 96, 96, 3), np.uint8)
        >>> strip = draw_strip([clip, clip], captions=['truth', 'predicted'], num_observed=[None, 1])
        >>> strip.shape[2], bool((strip == (230, 97, 1)).all(axis=2).any())  # an orange border
        (3, True)
    """
    observed = _check_rows(rows, captions, num_observed)
    num_frames, height, width = rows[0].shape[:3]
    font = ImageFont.load_default(size=FONT_SIZE)
    margin = _text_width(font, captions) + 4 * BORDER if captions else 0
    room = MAX_WIDTH - margin
    if scale is None:
        wanted = -(-MIN_SIDE // min(height, width))
        scale = max(1, min(wanted, (room // num_frames - 2 * BORDER - GAP) // width))
    cell_h, cell_w = height * scale + 2 * BORDER + GAP, width * scale + 2 * BORDER + GAP
    shown = _spread(num_frames, max(2, room // cell_w))

    header = FONT_SIZE + 2 * GAP
    canvas = Image.new('RGB', (margin + cell_w * len(shown), header + cell_h * len(rows)), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for column, t in enumerate(shown):
        draw.text((margin + column * cell_w + cell_w / 2, header / 2), str(t), TEXT, font, anchor='mm')
    for r, row in enumerate(rows):
        top = header + r * cell_h
        if captions:
            draw.text((margin - 2 * BORDER, top + cell_h / 2), captions[r], TEXT, font, anchor='rm', align='right')
        for column, t in enumerate(shown):
            cell = _framed(row[t], scale, PREDICTED if t >= observed[r] else BACKGROUND)
            canvas.paste(cell, (margin + column * cell_w, top))
    return np.array(canvas)


def draw_panels(
    clips: list[np.ndarray],
    captions: list[str],
    num_observed: list[int | None] | int | None = None,
    columns: int | None = None,
) -> np.ndarray:
    """Draw clips side by side under their captions, frame by frame, for an animation.

    The border of a panel is orange while its frame is predicted and grey before.

    Args:
        clips: Clips of one shape, uint8 ``(T, H, W, 3)``.
        captions: One text a clip, wrapped at spaces where it is wider than the panel.
        num_observed: As for :func:`draw_strip`.
        columns: Clips in a row, from left to right and then below; None for one row of all.

    Returns:
        uint8 ``(T, H', W', 3)`` with even H' and W', which video codecs ask for.

    Raises:
        ValueError: If shapes or counts do not fit.

    Example:
        >>> from pvvae_plugin.visualization import draw_panels, write_gif
        >>> clips = [np.zeros((5, 96, 96, 3), np.uint8) for _ in range(4)]
        >>> panels = draw_panels(clips, captions=['a', 'b', 'c', 'd'], columns=2)
        >>> len(panels)  # frames
        5
        >>> write_gif('panels.gif', panels, fps=8)
    """
    observed = _check_rows(clips, captions, num_observed)
    num_frames, height, width = clips[0].shape[:3]
    font = ImageFont.load_default(size=FONT_SIZE)
    scale = -(-MIN_SIDE // min(height, width))
    panel_h, panel_w = height * scale + 2 * BORDER, width * scale + 2 * BORDER
    texts = [_wrap(font, caption, panel_w) for caption in captions]
    column = max(panel_w, _text_width(font, texts)) + 2 * GAP
    header = (FONT_SIZE + 4) * max(text.count('\n') + 1 for text in texts) + 2 * GAP
    columns = min(columns or len(clips), len(clips))
    row = header + panel_h + GAP
    size = (column * columns, row * -(-len(clips) // columns))
    corners = [(i % columns * column, i // columns * row) for i in range(len(clips))]
    canvas = Image.new('RGB', tuple(side + side % 2 for side in size), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for (left, top), text in zip(corners, texts, strict=True):
        middle = (left + column / 2, top + header / 2)
        draw.multiline_text(middle, text, TEXT, font, anchor='mm', align='center')
    frames = []
    for t in range(num_frames):
        for (left, top), clip, seen in zip(corners, clips, observed, strict=True):
            cell = _framed(clip[t], scale, PREDICTED if t >= seen else OBSERVED)
            canvas.paste(cell, (left + (column - panel_w) // 2, top + header))
        frames.append(np.array(canvas))
    return np.stack(frames)


def _check_rows(
    rows: list[np.ndarray], captions: list[str] | None, num_observed: list[int | None] | int | None
) -> list[int]:
    """Observed frames of each row."""
    shapes = {row.shape for row in rows}
    dtypes = {row.dtype for row in rows}
    if len(shapes) != 1 or dtypes != {np.dtype(np.uint8)} or rows[0].ndim != 4 or rows[0].shape[3] != 3:
        raise ValueError(
            f'rows must be uint8 clips of one shape (T, H, W, 3), got shapes {sorted(shapes)} of '
            f'{sorted(map(str, dtypes))}; see to_uint8'
        )
    if captions is not None and len(captions) != len(rows):
        raise ValueError(f'{len(rows)} rows need as many captions, got {len(captions)}')
    per_row = num_observed if isinstance(num_observed, list) else [num_observed] * len(rows)
    if len(per_row) != len(rows):
        raise ValueError(f'{len(rows)} rows need as many numbers of observed frames, got {len(per_row)}')
    return [rows[0].shape[0] if n is None else n for n in per_row]


def _framed(frame: np.ndarray, scale: int, color: tuple[int, int, int]) -> Image.Image:
    """A frame enlarged, inside a border."""
    height, width = frame.shape[:2]
    cell = Image.new('RGB', (width * scale + 2 * BORDER, height * scale + 2 * BORDER), color)
    cell.paste(Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.NEAREST), (BORDER,) * 2)
    return cell


def _spread(num_frames: int, num_shown: int) -> list[int]:
    """Frame numbers spread evenly, first and last included."""
    if num_frames <= num_shown:
        return list(range(num_frames))
    return [round(i * (num_frames - 1) / (num_shown - 1)) for i in range(num_shown)]


def _text_width(font: ImageFont.FreeTypeFont, texts: list[str]) -> int:
    return max(int(font.getlength(line)) + 1 for text in texts for line in text.split('\n'))


def _wrap(font: ImageFont.FreeTypeFont, text: str, width: int) -> str:
    """Break a text at spaces so that its lines fit, as far as its words do."""
    lines: list[str] = []
    for word in text.split(' '):
        if lines and font.getlength(f'{lines[-1]} {word}') <= width:
            lines[-1] += f' {word}'
        else:
            lines.append(word)
    return '\n'.join(lines)

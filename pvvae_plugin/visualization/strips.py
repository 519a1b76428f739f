"""Drawing clips: still strips of frames, and panels for animations."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

BACKGROUND = (255, 255, 255)
TEXT = (40, 40, 40)
PREDICTED = (230, 97, 1)  # orange: stands out from most footage, also for color-blind readers
OBSERVED = (190, 190, 190)

MIN_SIDE = 96  # frames with a shorter side are enlarged, unless the strip would exceed MAX_WIDTH
MAX_WIDTH = 2400
BORDER = 3
GAP = 2
FONT_SIZE = 15


def to_uint8(video: Tensor) -> np.ndarray:
    """Convert a clip to 8 bits. Values are clipped to [-1, 1] and rounded, not truncated.

    Args:
        video: ``(3, T, H, W)`` in [-1, 1]. NaN becomes black.

    Returns:
        uint8 ``(T, H, W, 3)``.

    Raises:
        ValueError: If ``video`` is not ``(3, T, H, W)``.

    Example:
        >>> from pvvae_plugin.visualization import to_uint8
        >>> video = torch.tensor([-1.0, 0.0, 1.0, 5.0]).view(1, 4, 1, 1).expand(3, 4, 8, 8)
        >>> to_uint8(video)[:, 0, 0, 0].tolist()
        [0, 128, 255, 255]
    """
    if video.dim() != 4 or video.shape[0] != 3:
        raise ValueError(f'video must be one clip of shape (3, T, H, W), got {tuple(video.shape)}')
    values = video.detach().float().nan_to_num(nan=-1.0).clamp(-1, 1)
    return ((values + 1) * 127.5).round().byte().permute(1, 2, 3, 0).cpu().numpy()


def draw_strip(
    rows: list[np.ndarray],
    captions: list[str] | None = None,
    num_observed: list[int | None] | int | None = None,
    scale: int | None = None,
) -> np.ndarray:
    """Draw one row of frames per clip. Predicted frames have an orange border.

    Frame numbers, from 0, are printed above the columns. Clips that do not fit into 2,400 pixels are
    subsampled evenly and keep their first and last frames.

    Args:
        rows: Clips of the same shape, uint8 ``(T, H, W, 3)``.
        captions: One text per row, drawn to its left.
        num_observed: Number of frames that the model saw, for all rows or per row. Later frames are marked as
            predicted. None marks no frames.
        scale: Integer upscaling factor of the frames (nearest neighbor). None uses the smallest factor that makes the
            short side at least 96 pixels, or less if the strip would be too wide.

    Returns:
        uint8 ``(H', W', 3)``.

    Raises:
        ValueError: If the rows differ in shape, or the number of captions or ``num_observed`` does not match.

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
    """Draw the frames of an animation that shows clips side by side under their captions.

    The border of a panel is gray for observed frames and orange for predicted frames.

    Args:
        clips: Clips of the same shape, uint8 ``(T, H, W, 3)``.
        captions: One text per clip, wrapped at spaces if it is wider than the panel.
        num_observed: See :func:`draw_strip`.
        columns: Number of clips per row. None puts all clips into one row.

    Returns:
        uint8 ``(T, H', W', 3)`` with even H' and W', as video codecs require.

    Raises:
        ValueError: If the clips differ in shape, or the number of captions or ``num_observed`` does not match.

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
    """Check the arguments and return the number of observed frames per row."""
    shapes = {row.shape for row in rows}
    dtypes = {row.dtype for row in rows}
    if len(shapes) != 1 or dtypes != {np.dtype(np.uint8)} or rows[0].ndim != 4 or rows[0].shape[3] != 3:
        raise ValueError(
            f'rows must be uint8 clips of one shape (T, H, W, 3), got shapes {sorted(shapes)} of '
            f'{sorted(map(str, dtypes))}; convert them with to_uint8'
        )
    if captions is not None and len(captions) != len(rows):
        raise ValueError(f'captions must have one text per row ({len(rows)} rows), got {len(captions)}')
    per_row = num_observed if isinstance(num_observed, list) else [num_observed] * len(rows)
    if len(per_row) != len(rows):
        raise ValueError(f'num_observed must have one number per row ({len(rows)} rows), got {len(per_row)}')
    return [rows[0].shape[0] if n is None else n for n in per_row]


def _framed(frame: np.ndarray, scale: int, color: tuple[int, int, int]) -> Image.Image:
    """Upscale a frame and add a border."""
    height, width = frame.shape[:2]
    cell = Image.new('RGB', (width * scale + 2 * BORDER, height * scale + 2 * BORDER), color)
    cell.paste(Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.NEAREST), (BORDER,) * 2)
    return cell


def _spread(num_frames: int, num_shown: int) -> list[int]:
    """Return evenly spaced frame numbers, including the first and the last."""
    if num_frames <= num_shown:
        return list(range(num_frames))
    return [round(i * (num_frames - 1) / (num_shown - 1)) for i in range(num_shown)]


def _text_width(font: ImageFont.FreeTypeFont, texts: list[str]) -> int:
    return max(int(font.getlength(line)) + 1 for text in texts for line in text.split('\n'))


def _wrap(font: ImageFont.FreeTypeFont, text: str, width: int) -> str:
    """Wrap a text at spaces to a width in pixels. Single words may be wider."""
    lines: list[str] = []
    for word in text.split(' '):
        if lines and font.getlength(f'{lines[-1]} {word}') <= width:
            lines[-1] += f' {word}'
        else:
            lines.append(word)
    return '\n'.join(lines)

"""Confusion matrices as an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .strips import BACKGROUND, FONT_SIZE, TEXT

CELL = 44
GAP = 8
RIGHT = (33, 102, 172)  # blue on the diagonal and orange off it: distinguishable for color-blind readers
WRONG = (230, 97, 1)


def draw_confusions(counts: Sequence[np.ndarray], titles: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Draw confusion matrices side by side: rows are true classes, columns predictions, cells per cent of the row.

    Args:
        counts: Matrices ``(K, K)`` of counts.
        titles: One title per matrix.
        classes: ``K`` class names.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        ValueError: If a matrix is not ``(K, K)``, or the number of titles differs from the number of matrices.
    """
    k = len(classes)
    if len(titles) != len(counts) or any(table.shape != (k, k) for table in counts):
        raise ValueError(
            f'{len(titles)} titles and {k} classes do not match matrices of shapes '
            f'{[tuple(table.shape) for table in counts]}: give one title per ({k}, {k}) matrix'
        )
    font = ImageFont.load_default(size=FONT_SIZE)
    margin = max(int(font.getlength(name)) for name in classes) + 2 * GAP
    header = FONT_SIZE + 2 * GAP + margin
    panel = max(k * CELL, max(int(font.getlength(title)) for title in titles)) + 2 * GAP
    canvas = Image.new('RGB', (margin + panel * len(counts), header + k * CELL + GAP), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for row, name in enumerate(classes):
        draw.text((margin - GAP, header + (row + 0.5) * CELL), name, TEXT, font, anchor='rm')
    for p, (table, title) in enumerate(zip(counts, titles, strict=True)):
        left = margin + p * panel
        draw.text((left, GAP + FONT_SIZE / 2), title, TEXT, font, anchor='lm')
        for column, name in enumerate(classes):
            _paste_upright(canvas, name, font, left + column * CELL, header)
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        for row in range(k):
            for column in range(k):
                x, y = left + column * CELL, header + row * CELL
                share = float(shares[row, column])
                full = RIGHT if row == column else WRONG
                color = tuple(round(b + share * (f - b)) for b, f in zip(BACKGROUND, full, strict=True))
                draw.rectangle((x, y, x + CELL - 2, y + CELL - 2), color, outline=(220, 220, 220))
                if table[row, column]:
                    ink = BACKGROUND if share > 0.5 else TEXT
                    draw.text((x + CELL / 2, y + CELL / 2), f'{100 * share:.0f}', ink, font, anchor='mm')
    return np.array(canvas)


def _paste_upright(canvas: Image.Image, text: str, font: ImageFont.FreeTypeFont, left: int, bottom: int) -> None:
    """Paste a class name above its column, reading from bottom to top."""
    label = Image.new('RGB', (int(font.getlength(text)) + 1, FONT_SIZE + 6), BACKGROUND)
    ImageDraw.Draw(label).text((0, label.height / 2), text, TEXT, font, anchor='lm')
    upright = label.rotate(90, expand=True)
    canvas.paste(upright, (left + (CELL - upright.width) // 2, bottom - upright.height - GAP // 2))

"""Draw docs/images/method.svg, the figure of one training step of a predictive VAE.

Run from the repository root: ``python docs/figures/method.py [OUT]``. The background is opaque, so the figure is
readable on light and dark pages.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle

INK, GRAY, PAPER = '#24292f', '#8c959f', '#ffffff'
BLUE, ORANGE, FRAME = '#2f6fde', '#d9680b', '#f3f5f8'
OUT = Path(__file__).resolve().parents[1] / 'images' / 'method.svg'
SIDE = 0.78
# Left edges of the nine frames: group 0 is frame 0, groups 1 and 2 are four frames each.
LEFT = [1.55 + 0.88 * i + 0.3 * (i > 0) + 0.3 * (i > 4) for i in range(9)]


def draw_frame(ax: Axes, i: int, bottom: float, *, dropped: bool = False, predicted: bool = False) -> None:
    """Draw frame ``i`` with a disc that moves along an arc."""
    x, edge = LEFT[i], ORANGE if predicted else GRAY
    style = {'linestyle': (0, (3, 2))} if dropped else {}
    face = PAPER if dropped else FRAME
    ax.add_patch(Rectangle((x, bottom), SIDE, SIDE, facecolor=face, edgecolor=edge, lw=2 if predicted else 1, **style))
    center = (x + 0.16 + 0.058 * i, bottom + 0.2 + 0.1 * i - 0.0085 * i * i)
    disc = {'facecolor': 'none', 'edgecolor': GRAY, 'linestyle': (0, (2, 1.5))} if dropped else {'facecolor': BLUE}
    ax.add_patch(Circle(center, 0.12, alpha=0.65 if predicted else 1, **disc))


def draw_box(ax: Axes, x: float, y: float, text: str, *, padding: bool = False) -> None:
    """Draw one latent frame."""
    style = {'boxstyle': 'round,pad=0.02', 'lw': 1.6, 'edgecolor': ORANGE if padding else BLUE}
    face = '#fdeede' if padding else '#e3ecfb'
    ax.add_patch(FancyBboxPatch((x, y), 0.66, 0.66, facecolor=face, **style))
    ax.text(x + 0.33, y + 0.33, text, ha='center', va='center', fontsize=11, color=INK)


def draw_network(ax: Axes, x: float, y: float, text: str, *, widens: bool) -> None:
    """Draw an encoder, which narrows to the right, or a decoder, which widens."""
    left, right = (0.42, 0.66) if widens else (0.66, 0.42)
    corners = [(x, y - left), (x, y + left), (x + 1.6, y + right), (x + 1.6, y - right)]
    ax.add_patch(Polygon(corners, closed=True, facecolor='#eceff3', edgecolor=INK, lw=1.2))
    ax.text(x + 0.8, y, text, ha='center', va='center', fontsize=11, color=INK)


def draw_arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], *, angle: str = 'arc3') -> None:
    """Draw an arrow."""
    ax.annotate('', end, start, arrowprops={'arrowstyle': '-|>', 'color': INK, 'lw': 1.3, 'connectionstyle': angle})


def draw_step(ax: Axes, x: float, y: float, number: int, text: str, **style: str) -> None:
    """Draw the numbered label of a step."""
    ax.text(x, y, f'{number}. {text}', va='center', fontsize=10, color=INK, **style)


def main(out: Path) -> None:
    """Draw the figure.

    Args:
        out: File to write.
    """
    plt.rcParams.update({'svg.fonttype': 'path', 'svg.hashsalt': 'method', 'font.family': 'DejaVu Sans'})
    fig, ax = plt.subplots(figsize=(10.2, 4.9))
    top, middle, bottom = 3.75, 2.2, 0.35

    for i in range(9):
        draw_frame(ax, i, top, dropped=i > 4)
        draw_frame(ax, i, bottom, predicted=i > 4)
    for first, last, name in ((0, 0, 'group 0'), (1, 4, 'group 1'), (5, 8, 'group 2')):
        middle_x = (LEFT[first] + LEFT[last] + SIDE) / 2
        ax.text(middle_x, top + SIDE + 0.14, name, ha='center', fontsize=9, color=GRAY)
    for y, name in ((top, 'clip'), (bottom, 'output')):
        ax.text(0.3, y + SIDE / 2, name, va='center', fontsize=11, color=INK, weight='bold')
    draw_step(ax, LEFT[5], top - 0.2, 1, 'Drop the last k groups (here k = 1)')

    encoder, decoder = LEFT[1], LEFT[6] + 0.3
    latents = [4.85 + 0.84 * i for i in range(3)]
    draw_network(ax, encoder, middle, 'Encoder', widens=False)
    for i, (x, text) in enumerate(zip(latents, ('$z_0$', '$z_1$', 'pad'), strict=True)):
        draw_box(ax, x, middle - 0.33, text, padding=i == 2)
    draw_network(ax, decoder, middle, 'Decoder', widens=True)
    draw_arrow(ax, (encoder + 0.8, top - 0.08), (encoder + 0.8, middle + 0.62))
    draw_arrow(ax, (encoder + 1.68, middle), (latents[0] - 0.1, middle))
    draw_arrow(ax, (latents[2] + 0.76, middle), (decoder - 0.08, middle))
    draw_arrow(ax, (decoder + 0.8, middle - 0.62), (decoder + 0.8, bottom + SIDE + 0.08))
    draw_step(ax, encoder, middle - 0.86, 2, 'Encode the observed frames', ha='left')
    draw_step(ax, latents[0] - 0.05, middle + 0.68, 3, 'Append k padding latents', ha='left')
    draw_step(ax, decoder + 0.62, middle - 0.86, 4, 'Decode the whole clip', ha='right')

    note = 'Orange: frames that the encoder did not see. The loss covers all frames.'
    ax.text((LEFT[0] + LEFT[8] + SIDE) / 2, bottom - 0.28, note, ha='center', va='center', fontsize=10, color=INK)

    ax.set(xlim=(0.1, LEFT[8] + SIDE + 0.25), ylim=(-0.15, top + SIDE + 0.45), aspect='equal')
    ax.axis('off')
    metadata = {'Date': None} if out.suffix == '.svg' else None
    fig.savefig(out, facecolor=PAPER, bbox_inches='tight', pad_inches=0.08, metadata=metadata, dpi=110)


if __name__ == '__main__':
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)

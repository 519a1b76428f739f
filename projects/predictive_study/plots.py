"""Figures of a study."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .arms import ACCURACY, ARMS, BASELINE, FULLEST, GROUPS, RISING
from .measurements import final, is_unbiased, metrics_of, prediction
from .plan import Plan
from .run_configs import OWN

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter  # noqa: E402

# The baseline is black. No gray, which would be hard to distinguish from it.
COLORS = dict(zip(ARMS, ('k', 'C0', 'C1', 'C2', 'C3', 'C4', 'C5', 'C6', 'C8', 'C9', 'navy', 'm'), strict=True))
GAP, HEADING = 12, 34  # pixels
FAR_BELOW = 10  # floors lower than the curves by this factor are printed, not drawn
# Predictions from before decoder fine-tuning, which degrades them, come first.
PREDICTIONS = ['pictures_before/vis/test/clip_0{}.png', 'pictures/vis/test/clip_0{}.png']


def draw_all(found: dict[str, Any], plan: Plan) -> list[str]:
    """Draw all figures for which there are results.

    Returns:
        Names of the files in ``OUT/figures``.
    """
    folder = plan.out / 'figures'
    folder.mkdir(parents=True, exist_ok=True)
    arms = found['arms']
    # Ten curves in one panel are illegible.
    ladder = {arm: entry for arm, entry in arms.items() if arm in GROUPS['ladder']}
    knobs = {arm: entry for arm, entry in arms.items() if arm not in GROUPS['ladder'] or arm in (BASELINE, FULLEST)}
    drawn = {
        'convergence.png': convergence(ladder, own=False),
        'convergence_own.png': convergence(ladder, own=True),
        'convergence_knobs.png': convergence(knobs, own=False) if knobs.keys() - ladder.keys() else None,
        'final.png': final_distances(arms),
        'latent_distance.png': latent_distance(ladder or arms),
        'probes.png': probes(arms),
        'prediction_and_generation.png': prediction_and_generation(arms),
    }
    names = []
    for name, figure in drawn.items():
        if figure is not None:
            figure.tight_layout()
            figure.savefig(folder / name, dpi=90)
            plt.close(figure)
            names.append(name)
    pair = (BASELINE, FULLEST)
    pictures = {
        'latents.png': (pair, ['probes/pca_{}.png'], 2),
        'predictions.png': (pair, PREDICTIONS, 2),
        'generated.png': (pair, ['samples/sheet.png'], 1),
    }
    if 'weighted' in arms:
        pictures['predictions_weighted.png'] = ((FULLEST, 'weighted'), PREDICTIONS, 2)
    for name, (shown, wanted, count) in pictures.items():
        if side_by_side(plan, shown, wanted, folder / name, count):
            names.append(name)
    return names


def panels(names: list[str], columns: int = 3) -> tuple[Any, list[Any]]:
    """Create a figure with one panel per name."""
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.3 * columns, 3.2 * rows), squeeze=False)
    flat = list(axes.flat)
    for axis in flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(flat, names, strict=False):
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    return figure, flat[: len(names)]


def convergence(arms: dict[str, Any], own: bool) -> Any:
    """Plot the metrics of generated clips over the generator's steps: mean over seeds, range as a band.

    Args:
        arms: Results by arm.
        own: Whether to plot the distances to the VAE's own reconstructions. If False, plot the distances to real clips,
            the accuracy and the loss.
    """
    names = [name for name in metrics_of(arms) if name.startswith(f'{OWN}/') == own and name not in RISING]
    if not names:
        return None
    titles: dict[str | None, str] = {name: name for name in names}
    if not own:
        runs = [run for entry in arms.values() for run in entry['seeds'].values()]
        titles |= {name: f'{name} (higher is better)' for name in RISING if any(_curve(run, name) for run in runs)}
        titles[None] = 'flow loss (not comparable across VAEs)'
    figure, axes = panels(list(titles.values()))
    for axis, name in zip(axes, titles, strict=True):
        floors = []
        for arm, entry in arms.items():
            curves = [by_step for run in entry['seeds'].values() if (by_step := _curve(run, name))]
            steps = sorted(set.intersection(*map(set, curves))) if curves else []
            if not steps:
                continue
            values = np.array([[curve[step] for step in steps] for curve in curves])
            label = f'{entry["title"]} ({len(curves)} seed{"s" if len(curves) > 1 else ""})'
            axis.plot(steps, values.mean(0), 'o-', markersize=3, color=COLORS[arm], label=label)
            axis.fill_between(steps, values.min(0), values.max(0), color=COLORS[arm], alpha=0.2)
            floors += [run['floors'][name] for run in entry['seeds'].values() if name in run.get('floors', {})]
        if own and floors and not is_unbiased(name):
            floors = [1.0]  # own distances are divided by their floor
        if floors:
            draw_floor(axis, statistics.median(floors))  # distances to own reconstructions have one floor per VAE
        if name not in (*RISING, None) and all(min(line.get_ydata()) > 0 for line in axis.lines):
            axis.set_yscale('log')
            label_plainly(axis.yaxis)
        axis.set_xscale('log', base=2)
        ticks = sorted({step for line in axis.lines for step in line.get_xdata() if step > 1})
        axis.set_xticks(ticks, [f'{step:g}' for step in ticks])
        axis.set_xlabel('generator steps')
    axes[0].legend(fontsize=7)
    return figure


def draw_floor(axis: Any, floor: float) -> None:
    """Draw the noise floor as a line, or as text if it is so low that it would flatten the curves."""
    lowest = min(value for line in axis.lines for value in line.get_ydata())
    if floor > lowest / FAR_BELOW:
        axis.axhline(floor, color='k', linestyle=':', linewidth=1, label='floor')
    else:
        axis.text(0.02, 0.03, f'floor {floor:.2g}', transform=axis.transAxes, fontsize=8)


def label_plainly(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers, and with more of them if it spans less than a decade."""
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high > 5 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    if high < 2 * low:
        subs = np.arange(1, 10, 0.2)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter('{x:g}')
    axis.set_minor_formatter(NullFormatter())


def _curve(run: dict[str, Any], name: str | None) -> dict[int, float]:
    """Return a metric by step, or the flow loss if ``name`` is None."""
    if name is None:
        return {int(step): value for step, value in run.get('flow_loss', {}).items() if step in run.get('curve', {})}
    return {int(step): values[name] for step, values in run.get('curve', {}).items() if name in values}


def dots(arms: dict[str, Any], values: dict[str, Any]) -> Any:
    """Plot one panel per name, with seeds as dots and means as lines."""
    names = [
        name
        for name, of in values.items()
        if any(of(r) is not None for e in arms.values() for r in e['seeds'].values())
    ]
    if not names:
        return None
    figure, axes = panels(names)
    for axis, name in zip(axes, names, strict=True):
        for place, (arm, entry) in enumerate(arms.items()):
            numbers = [n for run in entry['seeds'].values() if (n := values[name](run)) is not None]
            if numbers:
                axis.plot([place] * len(numbers), numbers, 'o', color=COLORS[arm], markersize=5)
                axis.hlines(np.mean(numbers), place - 0.35, place + 0.35, color=COLORS[arm], linewidth=2)
        axis.set_xticks(
            range(len(arms)), [entry['title'] for entry in arms.values()], rotation=30, ha='right', fontsize=7
        )
    return figure


def final_distances(arms: dict[str, Any]) -> Any:
    """Plot reconstruction, prediction and generation metrics by arm."""
    values = {
        'PSNR, dB (higher is better)': lambda run: run.get('vae', {}).get('recon/psnr'),
        'error / repeat, 1 group dropped': lambda run: prediction(run, 'k1_vs_repeat'),
        **{name: lambda run, name=name: final(run, name) for name in metrics_of(arms) if not is_unbiased(name)},
        'clips recognized (higher is better)': lambda run: final(run, ACCURACY),
    }
    return dots(arms, values)


def probes(arms: dict[str, Any]) -> Any:
    """Plot the share of motion variance that linear probes explain from latents."""

    def of(name: str) -> Any:
        return lambda run: run.get('probes', {}).get(name, {}).get('explained_variance')

    return dots(arms, {name: of(name) for name in ('velocity_now', 'velocity_next', 'flow_now', 'flow_next')})


def latent_distance(arms: dict[str, Any]) -> Any:
    """Plot the Latent Temporal Distance: curves, those of frozen clips if measured, and histogram at interval 1."""
    runs = [(arm, run) for arm, entry in arms.items() for run in entry['seeds'].values() if 'ltd' in run]
    if not runs:
        return None
    titles = ['Latent Temporal Distance', 'interval 1, each place and pair of frames, one seed']
    if any('of_frozen_clips' in run['ltd'] for _, run in runs):
        titles.insert(1, 'the same of clips frozen at their first frame')
    figure, axes = panels(titles)
    curves, distribution = axes[:-1], axes[-1]
    seen = set()
    for arm, run in runs:
        distances = run['ltd']
        for axis, found in zip(curves, (distances, distances.get('of_frozen_clips')), strict=False):
            if found:
                axis.plot(distances['interval'], found['relative'], 'o-', color=COLORS[arm])
        if arm in seen:  # only one histogram per arm, to avoid clutter
            continue
        seen.add(arm)
        histogram, scale = distances['interval_1_histogram'], distances['unrelated_latents']
        edges, counts = np.array(histogram['edges']) / scale, np.array(histogram['counts'], float)
        density = counts / counts.sum() / np.diff(edges)
        distribution.stairs(density, edges, color=COLORS[arm], label=arms[arm]['title'])
    top = max(axis.get_ylim()[1] for axis in curves)
    for axis in curves:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel('interval (latent frames)')
        axis.set_ylabel('distance over that of unrelated latents')
        axis.set_ylim(0, top)
    distribution.set_xlabel('distance over that of unrelated latents')
    distribution.set_ylabel('density')
    distribution.legend(fontsize=8)
    return figure


def prediction_and_generation(arms: dict[str, Any]) -> Any:
    """Plot the quality of generated clips over the prediction error of the VAE, one point per run."""
    names = [name for name in metrics_of(arms) if not is_unbiased(name)]
    if not names:
        return None
    figure, axes = panels(names)
    for axis, name in zip(axes, names, strict=True):
        for arm, entry in arms.items():
            points = [
                (error, final(run, name))
                for run in entry['seeds'].values()
                if (error := prediction(run, 'k1_vs_repeat')) is not None and final(run, name) is not None
            ]
            if points:
                axis.plot(*zip(*points, strict=True), 'o', color=COLORS[arm], label=entry['title'])
        axis.set_xlabel('prediction error / repeat, 1 group dropped')
    if axes[0].lines:
        axes[0].legend(fontsize=7)
    return figure


def side_by_side(plan: Plan, shown: tuple[str, ...], patterns: list[str], path: Path, count: int) -> bool:
    """Join pictures of the first clips from several arms, for the first seed that all available arms share.

    Args:
        plan: The study.
        shown: The arms from left to right. Missing ones are skipped.
        patterns: File name patterns in a run's folder, with a placeholder for the number. The first match is used.
        path: Output file.
        count: Number of clips.

    Returns:
        Whether a picture was written.
    """
    seeds = {
        arm: {p.name for p in (plan.out / arm).glob('seed*') if p.is_dir()}
        for arm in shown
        if (plan.out / arm).is_dir()
    }
    if not (shared := set.intersection(*seeds.values()) if seeds else set()):
        return False
    arms, seed = list(seeds), min(shared, key=lambda name: (len(name), name))  # seed9 before seed10
    columns = []
    for arm in arms:
        folder = plan.out / arm / seed
        choices = [[folder / pattern.format(number) for number in range(count)] for pattern in patterns]
        columns += [files for files in choices if all(file.is_file() for file in files)][:1]
    if len(columns) < len(arms):
        return False
    font = ImageFont.load_default(size=18)
    sheets = []
    for arm, files in zip(arms, columns, strict=True):
        try:
            images = [Image.open(file).convert('RGB') for file in files]
        except OSError:  # still being written
            return False
        width = max(image.width for image in images)
        sheet = Image.new('RGB', (width + GAP, sum(image.height + GAP for image in images) + HEADING), 'white')
        ImageDraw.Draw(sheet).text((GAP, GAP // 2), ARMS[arm].title, fill='black', font=font)
        top = HEADING
        for image in images:
            sheet.paste(image, (0, top))
            top += image.height + GAP
        sheets.append(sheet)
    whole = Image.new('RGB', (sum(sheet.width for sheet in sheets), max(sheet.height for sheet in sheets)), 'white')
    left = 0
    for sheet in sheets:
        whole.paste(sheet, (left, 0))
        left += sheet.width
    whole.save(path, optimize=True)
    return True

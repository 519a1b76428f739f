"""Report of a study: results.json, tables in results.md, and figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pvvae_plugin.files import finite, write_atomically, write_json

from .arms import ACCURACY
from .curves import mean_and_interval
from .measurements import collect, final, metrics_of, prediction
from .plan import Plan
from .plots import draw_all
from .run_configs import OWN

Value = Callable[[dict[str, Any]], float | None]


def write_report(plan: Plan, others: Sequence[Path] = ()) -> str:
    """Write all results so far to the study's folder.

    Args:
        plan: The study.
        others: ``results.json`` files of the same study in other folders. Their runs are added.

    Returns:
        A line with the written files, for the terminal.

    Raises:
        ValueError: If one of these does not belong to the study.
    """
    found = finite(collect(plan, others))
    write_json(plan.out / 'results.json', found)
    write_atomically(plan.out / 'results.md', ('\n'.join(lines(found)) + '\n').encode())
    figures = draw_all(found, plan)
    return f'{plan.out}: results.json, results.md, figures {", ".join(figures) or "none yet"}'


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the report in Markdown."""
    arms, settings = found['arms'], found['settings']
    runs = [run for entry in arms.values() for run in entry['seeds'].values()]
    machines = dict.fromkeys(name for run in runs for name in run.get('machines', []))
    days = sorted({day for run in runs for day in run.get('days', [])})
    when = ' to '.join(dict.fromkeys([days[0], days[-1]])) if days else 'nothing yet'
    torches = ', '.join(dict.fromkeys(version for run in runs for version in run.get('torch', [])))
    yield f'Scale {settings["scale"]}, {asked_for(settings)}; {"; ".join(machines)}; {when}; torch {torches or "-"}.'
    yield 'Means over seeds, with single seeds in brackets; for three or more, ± is half the 95 % interval (Student).'
    if found['primary']:
        yield f'The primary metric is {found["primary"]} to real clips, in bold.'
    if settings['smoke']:
        yield '**Smoke test: the numbers are meaningless.**'
    yield from section('Reconstruction and prediction', arms, vae_columns(arms))
    yield ''
    yield 'Predictions were measured before decoder fine-tuning.'
    yield from unrecognized(arms)
    names = metrics_of(arms)
    of_real = [name for name in names if not name.startswith(f'{OWN}/')]
    columns: dict[str, Value] = {
        bold(name, found): lambda run, name=name: final(run, name)
        for name in sorted(of_real, key=lambda name: name != found['primary'])
    }
    columns[ACCURACY] = lambda run: final(run, ACCURACY)
    columns['flow loss'] = lambda run: last(run.get('flow_loss'))
    yield from section('Generation, last checkpoint: distances to real clips', arms, columns)
    yield from floors(arms, of_real)
    yield from scatter_over_clips(arms, of_real)
    columns = {name: lambda run, name=name: final(run, name) for name in names if name not in of_real}
    yield from section("The same to the VAE's own reconstructions of real clips", arms, columns)
    if columns:
        yield ''
        yield f'Fréchet distances of {OWN}/ are divided by their noise floor (two sets of reconstructions).'
    for reference, comparisons in found['against'].items():
        yield from against(reference, comparisons, found)
    yield from section('Latents', arms, latent_columns(arms))
    yield from section('Seconds of training', arms, time_columns(arms))


def asked_for(settings: dict[str, Any]) -> str:
    """Return a description of the data and other settings."""
    if settings['scale'] == 'paper':
        parts = ['UCF101']
    else:
        parts = [settings['videos'] or f'procedural clips ({settings["difficulty"]})']
    if settings['still_share']:
        parts.append(f'{settings["still_share"]:.0%} of the training clips still')
    if settings['from_scratch']:
        parts.append('every VAE from random weights')
    if settings['longer'] > 1:
        parts.append(f'generators trained {settings["longer"]} times as long')
    parts += [f'{what} {settings[key]}' for key, what in (('vae_init', 'VAEs from'), ('i3d', 'I3D')) if settings[key]]
    return ', '.join(parts)


def section(title: str, arms: dict[str, Any], columns: dict[str, Value]) -> Iterator[str]:
    """Yield a table with one row per arm and one column per metric."""
    cells = {arm: {name: cell(entry, value) for name, value in columns.items()} for arm, entry in arms.items()}
    yield from table(title, arms, cells)


def table(title: str, arms: dict[str, Any], cells: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yield a table with one row per arm, without empty columns."""
    columns = dict.fromkeys(name for row in cells.values() for name in row)
    kept = [name for name in columns if any(row[name] != '-' for row in cells.values())]
    if not kept:
        return
    yield from ('', f'### {title}', '', f'| | {" | ".join(kept)} |', '|---' * (len(kept) + 1) + '|')
    for arm, row in cells.items():
        if any(row[name] != '-' for name in kept):
            yield f'| {arms[arm]["title"]} | {" | ".join(row[name] for name in kept)} |'


def cell(entry: dict[str, Any], value: Value) -> str:
    """Format the mean, its interval and the values of the seeds."""
    numbers = [number for run in entry['seeds'].values() if (number := value(run)) is not None]
    if not numbers:
        return '-'
    mean, half = mean_and_interval(numbers)
    if half is None:
        return f'{mean:.4g}'
    # With two seeds the half-width is 12.7 standard errors, which is useless.
    width = f' ± {half:.2g}' if len(numbers) > 2 else ''
    return f'{mean:.4g}{width} ({", ".join(f"{number:.4g}" for number in numbers)})'


def vae_columns(arms: dict[str, Any]) -> dict[str, Value]:
    """Return the columns of reconstruction and prediction metrics."""
    names: dict[str, None] = {}
    for entry in arms.values():
        for run in entry['seeds'].values():
            names |= dict.fromkeys(run.get('vae', {}))
    groups = sorted({name.split('/')[1].split('_')[0] for name in names if name.startswith('predict/')})
    wanted = ['recon/psnr', 'recon/ssim', 'recon/lpips_alex']
    wanted += [name for name in names if name.startswith('recon/r') and name.split('_')[-1].isdigit()]
    wanted.append(ACCURACY)
    columns: dict[str, Value] = {
        name.removeprefix('recon/'): lambda run, name=name: run.get('vae', {}).get(name) for name in wanted
    }
    for name in (f'{k}_{kind}' for k in groups for kind in ('vs_repeat', 'moving_vs_repeat')):
        columns[name] = lambda run, name=name: prediction(run, name)
    return columns


def unrecognized(arms: dict[str, Any]) -> Iterator[str]:
    """Warn if VAEs lose the motion that the judge recognizes, which no generator can restore."""
    shares = {
        entry['title']: statistics.fmean(found)
        for entry in arms.values()
        if (found := [run['vae'][ACCURACY] for run in entry['seeds'].values() if ACCURACY in run.get('vae', {})])
    }
    if lost := [f'{title} ({share:.0%})' for title, share in shares.items() if share < 0.5]:
        yield ''
        yield (
            f'**Fewer than half of the reconstructions are recognized: {", ".join(lost)}. Accuracies and motion '
            'distances of clips generated from these latents measure the VAE rather than the generator.**'
        )


def latent_columns(arms: dict[str, Any]) -> dict[str, Value]:
    """Return the columns of latent temporal distances and probes."""
    columns: dict[str, Value] = {}
    longest = max(
        (len(run['ltd']['relative']) for e in arms.values() for run in e['seeds'].values() if 'ltd' in run), default=0
    )
    for i in range(longest):
        columns[f'LTD {i + 1}'] = lambda run, i=i: run['ltd']['relative'][i] if 'ltd' in run else None
    for i in range(longest):
        columns[f'LTD {i + 1}, frozen'] = lambda run, i=i: frozen_distance(run, i)
    columns['correlation with flow'] = lambda run: run.get('motion_correlation')
    columns['the same, pairs apart'] = correlation_within_pairs
    for probe in ('velocity_now', 'velocity_next', 'flow_now', 'flow_next'):
        columns[f'probe {probe}'] = lambda run, probe=probe: (
            run.get('probes', {}).get(probe, {}).get('explained_variance')
        )
    return columns


def frozen_distance(run: dict[str, Any], i: int) -> float | None:
    """Return the relative LTD at interval ``i + 1`` of clips frozen at their first frame, or None if not measured."""
    found = run.get('ltd', {}).get('of_frozen_clips')
    return found['relative'][i] if found else None


def correlation_within_pairs(run: dict[str, Any]) -> float | None:
    """Return the correlation of change with flow, averaged over frame pairs to exclude drift between pairs."""
    pairs = run.get('motion_correlation_per_pair') or [None]
    return None if None in pairs else statistics.fmean(pairs)


def time_columns(arms: dict[str, Any]) -> dict[str, Value]:
    """Return the columns of training times."""

    def of(name: str) -> Value:
        return lambda run: run.get('training_seconds', {}).get(name)

    return {'VAE, decoder fine-tuning included': of('vae'), 'generator': of('generator')}


def last(by_step: dict[str, float] | None) -> float | None:
    """Return the value at the last step."""
    return by_step[max(by_step, key=int)] if by_step else None


def floors(arms: dict[str, Any], names: list[str]) -> Iterator[str]:
    """Yield the noise floors, the distances between two sets of real clips."""
    for entry in arms.values():
        for run in entry['seeds'].values():
            if run.get('floors'):
                listed = ', '.join(f'{name} {run["floors"][name]:.3g}' for name in names if name in run['floors'])
                yield from ('', f'Real clips against real clips: {listed}.')
                return


def scatter_over_clips(arms: dict[str, Any], names: list[str]) -> Iterator[str]:
    """Yield the standard errors over the clips of a generator."""
    found = [
        errors[max(errors, key=int)]
        for entry in arms.values()
        for run in entry['seeds'].values()
        if (errors := run.get('standard_errors_over_clips'))
    ]
    medians = {name: statistics.median(of) for name in names if (of := [e[name] for e in found if name in e])}
    if medians:
        listed = ', '.join(f'{name} {error:.2g}' for name, error in medians.items())
        yield from ('', f'Standard errors over the clips of one generator (jackknife; median of runs): {listed}.')


def bold(name: str, found: dict[str, Any]) -> str:
    """Format the primary metric in bold."""
    return f'**{name}**' if name == found['primary'] else name


def against(reference: str, comparisons: dict[str, Any], results: dict[str, Any]) -> Iterator[str]:
    """Yield the tables of differences to a reference arm with the same seed."""
    arms, title = results['arms'], results['arms'][reference]['title']
    order = sorted(
        dict.fromkeys(name for names in comparisons.values() for name in names),
        key=lambda name: name != results['primary'],
    )

    def cells(text: Callable[[dict[str, Any]], str]) -> dict[str, dict[str, str]]:
        return {
            arm: {bold(name, results): text(names[name]) if name in names else '-' for name in order}
            for arm, names in comparisons.items()
        }

    yield from table(f'Minus "{title}" with the same seed', arms, cells(difference))
    if not order:
        return
    if any(found['interval_95_half_width'] is not None for names in comparisons.values() for found in names.values()):
        yield ''
        yield '95 % intervals of differences use the residual variance of all runs after removing arm and seed effects.'
    for key, heading in (
        ('share_of_steps_to_its_final', f'Share of steps to where "{title}" ends'),
        ('its_share_of_steps_to_this_final', f'The reverse: share of steps of "{title}" to where the arm ends'),
    ):
        yield from table(heading, arms, cells(lambda found, key=key: ', '.join(map(share, found.get(key, []))) or '-'))


def difference(found: dict[str, Any]) -> str:
    """Format a mean difference with its confidence interval."""
    half = found['interval_95_half_width']
    return f'{found["mean_difference"]:+.3g}' + ('' if half is None else f' ± {half:.2g}')


def share(value: float | str | None) -> str:
    """Format a share of steps."""
    return 'not reached' if value is None else value if isinstance(value, str) else f'{value:.2f}'

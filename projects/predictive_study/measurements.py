"""Collection and comparison of the measurements of a study."""

from __future__ import annotations

import math
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pvvae_plugin.files import read_json, read_scalars

from .arms import ACCURACY, ARMS, BASELINE, FULLEST, RISING
from .curves import differences, steps_to_reach
from .plan import Plan
from .run_configs import OWN, changed_contents

# Candidates for the primary metric, in order of preference; fixed before there were results.
PRIMARY = ('FVD', 'proxy_motion', 'proxy_time')


def collect(plan: Plan, others: Sequence[Path] = ()) -> dict[str, Any]:
    """Collect the available results of all arms and seeds in the study's folder.

    Args:
        plan: The study.
        others: ``results.json`` files of the same study in other folders. Their runs are added.

    Raises:
        ValueError: If one of these belongs to another study, or contains a run that exists already.
    """
    arms = {}
    for arm, what in ARMS.items():
        names = [path.name for path in (plan.out / arm).glob('seed*') if path.is_dir()]
        seeds = sorted(int(match[1]) for match in map(re.compile(r'seed(\d+)').fullmatch, names) if match)
        runs = {str(seed): run for seed in seeds if (run := _run(plan, arm, seed))}
        if runs:
            arms[arm] = {
                'title': what.title,
                **{name: value for name, value in what._asdict().items() if name not in ('title', 'finetunes')},
                'pretraining_steps': 0 if plan.settings.vae_init else plan.scale.pretraining_steps,
                'vae_steps': plan.scale.vae_steps,
                'of_these_decoder_alone': plan.decoder_steps(arm),
                'generator_steps': plan.scale.generator_steps,
                'seeds': runs,
            }
    settings = plan.settings._asdict()
    merged = {}
    settings |= {name: Path(settings[name]).name for name in ('videos', 'i3d', 'vae_init') if settings[name]}
    contents = plan.contents()
    for path in others:
        other = read_json(path, "a study's results.json")
        _check_results(other, path)
        merged[str(path)] = changed = changed_contents(other.get('sha256', {}), contents)
        if changed:
            print(f'{path}: its runs were made with a different version of {", ".join(changed)}', file=sys.stderr)
        arms = _with_other(arms, other, path, settings)
    references = [arm for arm in (BASELINE, FULLEST) if arm in arms]
    if len(arms) <= 2:  # with two arms, the second comparison would mirror the first
        references = references[:1]
    return {
        'settings': settings,
        'sha256': contents,
        'merged': merged,
        'primary': next((name for name in PRIMARY if name in metrics_of(arms)), None),
        'arms': arms,
        'against': {reference: compare(arms, reference) for reference in references},
    }


def _with_other(arms: dict[str, Any], other: dict[str, Any], path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Add the runs of another folder's results to ``arms``."""
    differing = [f'{k}={other["settings"].get(k)!r}' for k, v in settings.items() if other['settings'].get(k) != v]
    if differing:
        raise ValueError(f'{path} is of a study with {", ".join(differing)}; only runs of the same study can be merged')
    for arm, entry in other['arms'].items():
        ours = arms.setdefault(arm, {**entry, 'title': ARMS[arm].title, 'seeds': {}})
        if differing := [k for k, v in entry.items() if k not in ('title', 'seeds') and ours.get(k) != v]:
            raise ValueError(f'{path}: {arm} differs from this study in {", ".join(differing)}')
        if twice := ours['seeds'].keys() & entry['seeds'].keys():
            raise ValueError(f'{path}: {arm} with seed {", ".join(sorted(twice))} exists already')
        ours['seeds'] = dict(sorted({**ours['seeds'], **entry['seeds']}.items()))
    return {arm: arms[arm] for arm in ARMS if arm in arms}


def _check_results(other: dict[str, Any], path: Path) -> None:
    """Check that a JSON file has the structure of a study's ``results.json``."""
    for name in ('settings', 'arms'):
        if not isinstance(other.get(name), dict):
            raise ValueError(f'{path} has no {name}; pass the results.json of a study')
    if not isinstance(other.get('sha256', {}), dict):
        raise ValueError(f'{path}: sha256 must be a dict, got {other["sha256"]!r}; pass the results.json of a study')
    if unknown := [arm for arm in other['arms'] if arm not in ARMS]:
        raise ValueError(f'{path} has unknown arms: {", ".join(unknown)}; known are {", ".join(ARMS)}')
    for arm, entry in other['arms'].items():
        seeds = entry.get('seeds') if isinstance(entry, dict) else None
        if not isinstance(seeds, dict):
            raise ValueError(f'{path}: {arm} has no seeds')
        for seed, run in seeds.items():
            curve = run.get('curve', {}) if isinstance(run, dict) else None
            steps = curve.values() if isinstance(curve, dict) and all(map(str.isdecimal, curve)) else [None]
            if not seed.isdecimal() or not all(isinstance(v, dict) and all(map(_is_number, v.values())) for v in steps):
                raise ValueError(f'{path}: the entry of {arm} with seed {seed!r} is not a valid run')


def _run(plan: Plan, arm: str, seed: int) -> dict[str, Any]:
    """Collect the results of all finished stages of one arm and seed."""
    folder, run = plan.folder(arm, seed), {}
    seconds, where, versions, days = {}, {}, {}, set()
    for path in sorted((plan.out / 'stages').glob(f'{arm}_seed{seed}_*.json')):
        if not path.name.endswith('.begun.json'):
            name = path.stem.removeprefix(f'{arm}_seed{seed}_')
            record = _record(path)
            seconds[name] = round(record['seconds'], 1)
            where[record['machine']] = versions[record['torch']] = None
            days.add(record['written'][:10])
    for name, stage, file in (('vae', 'test', 'vae.json'), ('before_fine_tuning', 'test_before', 'vae_before.json')):
        if stage in seconds:
            metrics = read_json(folder / file, 'what tools/test.py --out writes')['metrics']
            run[name] = {k: v for k, v in metrics.items() if not isinstance(v, list) and v is not None}
    if 'vae' in run:
        predicted = run.get('before_fine_tuning') if plan.decoder_steps(arm) else run['vae']
        run['prediction'] = {k: v for k, v in (predicted or {}).items() if k.startswith('predict/')}
    if 'probes' in seconds:
        record = read_json(folder / 'probes' / 'probes.json', 'what tools/analysis/probe_latents.py writes')
        run['probes'] = record['probes']
        run['ltd'] = {k: v for k, v in record['latent_temporal_distance'].items() if k != 'per_clip'}
        run['motion_correlation'] = record['correlation']['value']
        run['motion_correlation_per_pair'] = record['correlation']['per_pair']
    curve, floors, errors = {}, {}, {}
    for step in plan.checkpoints():
        if f'at_{step}' in seconds:
            content = read_json(folder / f'generator_{step}.json', 'what tools/test.py --out writes')
            curve[str(step)], found, errors[str(step)] = _distances(content)
            floors |= found
    if curve:
        run |= {'curve': curve, 'floors': floors, 'standard_errors_over_clips': errors}
        run['all_checkpoints'] = len(curve) == len(plan.checkpoints())
    if 'generator' in seconds and (flow := _flow_losses(folder / 'generator')):
        run['flow_loss'] = flow
    trainings = {'vae': ['vae', 'decoder'] if plan.decoder_steps(arm) else ['vae'], 'generator': ['generator']}
    for name, stages in trainings.items():
        if all(stage in seconds for stage in stages):
            run.setdefault('training_seconds', {})[name] = sum(seconds[stage] for stage in stages)
    if seconds:
        run |= {'seconds': seconds, 'machines': list(where), 'torch': list(versions), 'days': sorted(days)}
    return run


def _record(path: Path) -> dict[str, Any]:
    """Read the record of a finished stage."""
    record = read_json(path, 'the record of a finished stage')
    kinds = {'seconds': (int, float), 'machine': str, 'torch': str, 'written': str}
    if wrong := [name for name, kind in kinds.items() if not isinstance(record.get(name), kind)]:
        raise ValueError(f'{path} is damaged ({", ".join(wrong)}): delete it, and the stage will run again')
    return record


def _distances(content: dict[str, Any]) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return values, floors and standard errors by short name, e.g. ``proxy_time`` for ``gen/proxy_time9_256``.

    Fréchet distances to a VAE's own reconstructions are divided by their noise floor, the distance between two sets of
    reconstructions. Both shrink with the variance of the reconstructions, which differs between VAEs.
    """
    values = {name: value for name, value in content['metrics'].items() if name == ACCURACY}
    floors, errors = {}, {}
    for name, record in content['records'].items():
        short = re.sub(r'\d+_\d+$', '', name.removeprefix('gen/'))
        value, floor = record['value'], (record.get('floor') or {}).get('value')
        error = record.get('standard_error')
        if short.startswith(f'{OWN}/') and not is_unbiased(short) and floor:
            value, error = value / floor, None if error is None else error / floor
        values[short] = value
        if error is not None:
            errors[short] = error
        if floor is not None:
            floors[short] = floor
    return {name: value for name, value in values.items() if _is_number(value)}, floors, errors


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def is_unbiased(name: str) -> bool:
    """Return whether a distance is an unbiased kernel distance, whose expected floor is 0."""
    return name.endswith('_kernel') or name.split('/')[-1] == 'KVD'


def _flow_losses(work_dir: Path) -> dict[str, float]:
    """Return the validation losses by step, from all launches of the run."""
    return {str(entry['step']): entry['flow/loss'] for entry in read_scalars(work_dir) if 'flow/loss' in entry}


def metrics_of(arms: dict[str, Any]) -> list[str]:
    """Return the names of all distances of generated clips, in the order of the config."""
    names: dict[str, None] = {}
    for entry in arms.values():
        for run in entry['seeds'].values():
            for values in run.get('curve', {}).values():
                names |= dict.fromkeys(name for name in values if name != ACCURACY)
    return list(names)


def prediction(run: dict[str, Any], name: str) -> float | None:
    """Return a prediction metric of the VAE, measured before decoder fine-tuning if there is any."""
    return run.get('prediction', {}).get(f'predict/{name}')


def final(run: dict[str, Any], name: str) -> float | None:
    """Return a metric of the generator's last checkpoint, or None until all checkpoints are measured."""
    return run['curve'][max(run['curve'], key=int)].get(name) if run.get('all_checkpoints') else None


# VAE metrics for comparing arms.
OF_VAES: dict[str, Callable[[dict[str, Any]], float | None]] = {
    'PSNR': lambda run: run.get('vae', {}).get('recon/psnr'),
    'prediction error / repeat': lambda run: prediction(run, 'k1_vs_repeat'),
    'LTD 1': lambda run: run['ltd']['relative'][0] if 'ltd' in run else None,
    **{
        f'probe {name}': lambda run, name=name: run.get('probes', {}).get(name, {}).get('explained_variance')
        for name in ('velocity_now', 'velocity_next', 'flow_now', 'flow_next')
    },
}


def compare(arms: dict[str, Any], reference: str) -> dict[str, Any]:
    """Compare every arm with a reference arm of the same seed: final differences, and steps to its final value."""
    found: dict[str, Any] = {}
    generated = {name: lambda run, name=name: final(run, name) for name in [*metrics_of(arms), ACCURACY]}
    for name, value in {**generated, **OF_VAES}.items():
        ends = {
            arm: {seed: number for seed, run in entry['seeds'].items() if (number := value(run)) is not None}
            for arm, entry in arms.items()
        }
        if not ends[reference]:
            continue
        for arm, (pairs, half) in differences(ends, reference).items():
            compared = {
                'final_difference': pairs,
                'mean_difference': statistics.fmean(pairs),
                'interval_95_half_width': half,
            }
            if name in generated:
                runs, others = arms[arm]['seeds'], arms[reference]['seeds']
                shared = [seed for seed in ends[arm] if seed in ends[reference]]
                compared |= _shares([(runs[seed]['curve'], others[seed]['curve']) for seed in shared], name)
            found.setdefault(arm, {})[name] = compared
    return found


def _shares(pairs: list[tuple[dict, dict]], name: str) -> dict[str, Any]:
    """Return shares of steps for pairs of curves, one pair per seed."""
    sign = -1 if name in RISING else 1
    shares, reverse = [], []
    for curve, reference in pairs:
        steps = sorted(map(int, curve))
        if any(name not in c.get(str(step), {}) for c in (curve, reference) for step in steps):
            shares.append('not measured')
            reverse.append('not measured')
            continue
        values, others = ([sign * c[str(step)][name] for step in steps] for c in (curve, reference))
        shares.append(_share(steps, values, others))
        reverse.append(_share(steps, others, values))
    return {'share_of_steps_to_its_final': shares, 'its_share_of_steps_to_this_final': reverse}


def _share(steps: list[int], values: list[float], others: list[float]) -> float | str | None:
    """Return the share of all steps after which ``values`` reach the final value of ``others``.

    Returns:
        None if they never reach it. A string if ``others`` reached it before their end, which makes the share
        meaningless, or if only an upper bound is known.
    """
    if min(others[:-1]) <= others[-1]:
        return 'does not fall'
    reached = steps_to_reach(steps, values, others[-1])
    if reached is None:
        return None
    return f'<= {steps[0] / steps[-1]:.3g}' if values[0] <= others[-1] else reached / steps[-1]

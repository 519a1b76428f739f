"""Collects what the stages of a study measured."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, BASELINE
from curves import mean_and_interval, steps_to_reach
from plan import Plan

from pvvae_plugin import __version__
from pvvae_plugin.files import read_json


def collect(plan: Plan) -> dict[str, Any]:
    """All numbers that are there, of every arm and seed."""
    arms = {}
    for arm in plan.arms:
        what = ARMS[arm]
        runs = {str(seed): run for seed in plan.seeds if (run := _run(plan, arm, seed))}
        if runs:
            arms[arm] = {
                'title': what.title,
                **{name: value for name, value in what._asdict().items() if name not in ('title', 'finetunes')},
                'pretraining_steps': plan.scale.pretraining_steps,
                'vae_steps': plan.scale.vae_steps,
                'of_these_decoder_alone': plan.decoder_steps(arm),
                'generator_steps': plan.scale.generator_steps,
                'seeds': runs,
            }
    return {
        'settings': plan.settings._asdict(),
        'machine': machine(),
        'date': datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC'),
        'pvvae_plugin': __version__,
        'torch': torch.__version__,
        'arms': arms,
        'against_baseline': compare(arms),
    }


def machine() -> str:
    """Where it was measured."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path('/proc/cpuinfo')
    names = re.findall(r'model name\s*: (.*)', info.read_text()) if info.exists() else []
    return f'{names[0] if names else platform.machine()}, {os.cpu_count()} cores'


def _run(plan: Plan, arm: str, seed: int) -> dict[str, Any]:
    """One arm with one seed: whatever its stages have written so far."""
    folder, run = plan.folder(arm, seed), {}
    for name, file in (('vae', 'vae.json'), ('before_fine_tuning', 'vae_before.json')):
        if (folder / file).is_file():
            metrics = read_json(folder / file, 'what tools/test.py --out writes')['metrics']
            run[name] = {k: v for k, v in metrics.items() if not isinstance(v, list) and v is not None}
    if (folder / 'probes' / 'probes.json').is_file():
        record = read_json(folder / 'probes' / 'probes.json', 'what tools/analysis/probe_latents.py writes')
        run['probes'] = record['probes']
        run['ltd'] = record['latent_temporal_distance']
        run['motion_correlation'] = record['correlation']['value']
    curve, floors = {}, {}
    for step in plan.checkpoints():
        path = folder / f'generator_{step}.json'
        if path.is_file():
            content = read_json(path, 'what tools/test.py --out writes')
            curve[str(step)], found = _distances(content)
            floors |= found
    if curve:
        run['curve'], run['floors'] = curve, floors
    if flow := _flow_losses(folder / 'generator'):
        run['flow_loss'] = flow
    seconds = {}
    for path in sorted((plan.out / 'stages').glob(f'{arm}_seed{seed}_*.json')):
        if not path.name.endswith('.begun.json'):
            name = path.stem.removeprefix(f'{arm}_seed{seed}_')
            seconds[name] = round(read_json(path, 'the record of a finished stage')['seconds'], 1)
    if seconds:
        run['seconds'] = seconds
    return run


def _distances(content: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Values and floors by short names: ``proxy_time`` for ``gen/proxy_time9_256``, ``own/...`` as they are."""
    values = {name: value for name, value in content['metrics'].items() if name == 'class/accuracy'}
    floors = {}
    for name, record in content['records'].items():
        short = re.sub(r'\d+_\d+$', '', name.removeprefix('gen/'))
        values[short] = record['value']
        if record.get('floor'):
            floors[short] = record['floor']['value']
    return {name: value for name, value in values.items() if value is not None}, floors


def _flow_losses(work_dir: Path) -> dict[str, float]:
    """Validation losses by step, of all launches of the run."""
    found = {}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in file.read_text(encoding='utf-8').splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a run that was killed
                continue
            if 'flow/loss' in entry:
                found[str(entry['step'])] = entry['flow/loss']
    return found


def metrics_of(arms: dict[str, Any]) -> list[str]:
    """Names of all distances of generated clips, in the order of the config."""
    names: dict[str, None] = {}
    for entry in arms.values():
        for run in entry['seeds'].values():
            for values in run.get('curve', {}).values():
                names |= dict.fromkeys(name for name in values if name != 'class/accuracy')
    return list(names)


def prediction(run: dict[str, Any], name: str) -> float | None:
    """A number of the VAE's predictions, of before its decoder was fine-tuned where it was."""
    return run.get('before_fine_tuning', run.get('vae', {})).get(f'predict/{name}')


def final(run: dict[str, Any], name: str) -> float | None:
    """A number of a generator's last checkpoint, where all have been measured."""
    curve = run.get('curve')
    return None if not curve else curve[max(curve, key=int)].get(name)


def compare(arms: dict[str, Any]) -> dict[str, Any]:
    """Every arm against the baseline with the same seed: differences at the end, and steps to where that ends."""
    if BASELINE not in arms:
        return {}
    found: dict[str, Any] = {}
    for arm, entry in arms.items():
        if arm == BASELINE:
            continue
        found[arm] = {}
        for name in [*metrics_of(arms), 'class/accuracy']:
            pairs = [
                (run['curve'], arms[BASELINE]['seeds'][seed]['curve'])
                for seed, run in entry['seeds'].items()
                if _complete(run, arms[BASELINE]['seeds'].get(seed), name)
            ]
            if pairs:
                found[arm][name] = _compare_pairs(pairs, name)
    return found


def _complete(run: dict[str, Any], baseline: dict[str, Any] | None, name: str) -> bool:
    """Whether both have been measured at the same steps."""
    if not baseline or not run.get('curve') or not baseline.get('curve'):
        return False
    both = [*run['curve'].values(), *baseline['curve'].values()]
    return run['curve'].keys() == baseline['curve'].keys() and all(name in values for values in both)


def _compare_pairs(pairs: list[tuple[dict, dict]], name: str) -> dict[str, Any]:
    """Differences and ratios over seeds, of curves by step."""
    differences, ratios = [], []
    for curve, baseline in pairs:
        steps = sorted(map(int, curve))
        values, others = ([c[str(step)][name] for step in steps] for c in (curve, baseline))
        differences.append(values[-1] - others[-1])
        sign = -1 if name == 'class/accuracy' else 1  # which rises
        reached = steps_to_reach(steps, [sign * value for value in values], sign * others[-1])
        ratios.append(None if reached is None else reached / steps[-1])
    mean, half = mean_and_interval(differences)
    return {
        'final_difference': differences,
        'mean_difference': mean,
        'interval_95_half_width': half,
        'share_of_steps_to_baselines_final': ratios,
    }


def finite(value: Any) -> Any:
    """Without NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

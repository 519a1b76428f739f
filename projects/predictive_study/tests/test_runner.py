"""The study's runner: failures, kills and resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from projects.predictive_study.plan import Plan
from projects.predictive_study.runner import Runner

from .study_runs import ROOT, settings, stage, wait_for


def test_a_failure_costs_what_needs_it_and_the_next_call_tries_again(tmp_path):
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
    made = [tmp_path / 'generator' / f'iter_{step}.pth' for step in range(500, 4001, 500)]
    made.append(made[0].with_name('iter_1234.pth'))  # saved at an interruption
    made[0].parent.mkdir()
    code = '; '.join(['import pathlib', *(f'pathlib.Path({str(path)!r}).touch()' for path in made)])
    planned = {one.kind: one for one in Plan(settings(), ['full'], [0], tmp_path).stages()}['generator']
    keeps = tuple(tmp_path / 'generator' / path.name for path in planned.keeps)
    failing = stage('a', f'{code}; raise SystemExit(1)')._replace(keeps=keeps)
    assert Runner([failing], tmp_path, jobs=1, threads=1, minutes=None).run().failed == ['a']
    assert all(path.exists() for path in made)  # needed to resume
    works = failing._replace(command=[sys.executable, '-c', code])
    for _ in range(2):
        assert Runner([works], tmp_path, jobs=1, threads=1, minutes=None).run().done == 1
        left = [path.name for path in made if path.exists()]
        assert left == [f'iter_{step}.pth' for step in (500, 1000, 2000, 4000)]
        made[-1].touch()  # as if a kill had prevented the deletion


def test_a_full_disk_or_a_damaged_file_costs_a_stage_and_not_the_study(tmp_path, capsys):
    note = str(tmp_path / 'order')
    stages = [stage(name, f'open({note!r}, "a").write({name!r})', resumable=True) for name in 'abc']
    (tmp_path / 'logs' / 'a.log').mkdir(parents=True)  # not writable, as on a full disk
    (tmp_path / 'stages').mkdir()
    (tmp_path / 'stages' / 'c.begun.json').write_text('{"seco')
    outcome = Runner(stages, tmp_path, jobs=1, threads=1, minutes=None).run()
    assert outcome == (2, ['a'], False) and (tmp_path / 'order').read_text() == 'bc'
    assert (
        'a could not be started' in (errors := capsys.readouterr().err)
        and 'time spent in earlier calls is lost' in errors
    )


def test_seconds_of_a_call_that_was_killed_count(tmp_path):
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
        'import pathlib, sys\n'
        'from projects.predictive_study.plan import Stage\n'
        'from projects.predictive_study.runner import Runner\n'
        'stages = [Stage(name, "x", [sys.executable, "-c", "pass"], ()) for name in "ab"]\n'
        f'raise SystemExit(Runner(stages, pathlib.Path({str(tmp_path)!r}), 1, 1, None).run().done != 2)'
    )
    study = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE)
    study.stdout.close()
    assert study.wait(60) == 0


def test_stages_run_side_by_side_with_their_threads(tmp_path):
    # Each stage waits for the other's file, so they must run at the same time.
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


def test_stages_find_this_checkout_in_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', 'mine')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'of_the_caller.py').touch()
    code = f'import of_the_caller, pvvae_plugin, projects; assert projects.__path__ == [{str(ROOT / "projects")!r}]'
    assert Runner([stage('a', code)], tmp_path, jobs=1, threads=1, minutes=None).run().done == 1


def test_when_time_is_over_stages_save_and_leave(tmp_path):
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
    # The time of the interrupted call is added when the stage is done.
    stages[0] = stage('long', 'pass', resumable=True)
    assert Runner(stages, tmp_path, jobs=1, threads=1, minutes=None).run().done == 2
    assert json.loads((tmp_path / 'stages' / 'long.json').read_text())['seconds'] > 1.4


def test_a_stage_that_does_not_leave_in_time_is_ended(tmp_path, capsys):
    code = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)'
    start = time.monotonic()
    outcome = Runner([stage('a', code)], tmp_path, jobs=1, threads=1, minutes=1 / 60, grace=1.0).run()
    assert outcome == (0, [], True) and time.monotonic() - start < 20
    assert 'stopped: a, which will restart from scratch' in capsys.readouterr().out


def test_a_stage_that_crashes_while_it_stops_has_failed(tmp_path, capsys):
    code = (
        'import signal, time\n'
        "def leave(*_): raise RuntimeError('cannot save')\n"
        'signal.signal(signal.SIGTERM, leave)\n'
        'time.sleep(60)'
    )
    outcome = Runner([stage('a', code, resumable=True)], tmp_path, jobs=1, threads=1, minutes=1 / 60).run()
    assert outcome == (0, ['a'], True)
    told = capsys.readouterr()
    assert 'a ended with code 1' in told.err and 'cannot save' in told.err and 'stopped: a' not in told.out


def test_a_stage_that_was_asked_to_stop_stops_the_study(tmp_path):
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
        'import pathlib, sys\n'
        'from projects.predictive_study.plan import Stage\n'
        'from projects.predictive_study.runner import Runner\n'
        f'stages = [Stage("a", "x", [sys.executable, "-c", {child!r}], ())]\n'
        f'Runner(stages, pathlib.Path({str(tmp_path)!r}), 1, 1, None).run()'
    )
    study = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT)
    wait_for(tmp_path / 'started')
    study.send_signal(signal.SIGKILL)
    study.wait()
    wait_for(tmp_path / 'left')


def test_a_stage_of_a_killed_study_is_waited_for(tmp_path, capsys):
    note = str(tmp_path / 'order')
    slow = stage('a', f'import time; time.sleep(2); open({note!r}, "a").write("old ")')
    earlier = subprocess.Popen(slow.command)
    (tmp_path / 'stages').mkdir()
    (tmp_path / 'stages' / 'a.pid').write_text(f'{earlier.pid}\n')
    # A reused process ID must not be mistaken for a stage.
    (tmp_path / 'stages' / 'b.pid').write_text(f'{os.getpid()}\n')
    reap = threading.Thread(target=earlier.wait)
    reap.start()
    quick = [slow._replace(command=slow.command), stage('b', f'open({note!r}, "a").write("new ")')]
    assert Runner(quick, tmp_path, jobs=2, threads=1, minutes=None).run() == (2, [], False)
    reap.join()
    assert (tmp_path / 'order').read_text() == 'old new old '
    assert 'a of an earlier call, which is still saving' in capsys.readouterr().out
    assert not list((tmp_path / 'stages').glob('*.pid'))

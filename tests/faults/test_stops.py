"""Signals, full disks, torn files, stuck data: the state is kept, and the exit says what happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import (
    ITERATIONS,
    ROOT,
    VAE,
    assert_same_state,
    environment,
    last,
    run,
    train_command,
    write_config,
)

from pvvae_plugin.engine.stop_request import EXIT_CODE, INTERRUPTED
from pvvae_plugin.files import lock_folder

pytestmark = pytest.mark.long


def stop(command: list[str], marker, number: int, to_group: bool = False, code: int = EXIT_CODE) -> str:
    """Start a run, signal it once ``marker`` is there, and return what it printed. It must leave with ``code``."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not marker.exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (os.killpg if to_group else os.kill)(process.pid, number)
    log = process.communicate(timeout=200)[0]
    assert process.returncode == code, log[-3000:]
    return log


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize('to_group', [False, True], ids=['process', 'group'])
@pytest.mark.parametrize('where', ['step', 'validation'])
def test_a_signal_saves_and_leaves(vae, tmp_path, number, to_group, where):
    """To the process alone, or to its data workers as well, as schedulers send it."""
    marker = tmp_path / 'started'
    slow = f"dict(type='SlowHook', seconds=0.5, started=r'{marker}')"
    # Validation comes where no checkpoint has just been written.
    rare = 'default_hooks["checkpoint"].update(interval=6)\n' if where == 'validation' else ''
    config = write_config(tmp_path / 'config.py', VAE, extra=slow, more=rare)
    waited_for = marker if where == 'step' else tmp_path / 'started.validation'
    log = stop(train_command(config, tmp_path / 'run'), waited_for, number, to_group)
    assert f'Exit code {EXIT_CODE}' in log
    assert '--resume' in log
    stopped_at = int((tmp_path / 'run' / 'last_checkpoint').read_text().split('iter_')[1].split('.')[0])
    assert 0 < stopped_at < ITERATIONS
    assert stopped_at % 2 == 0  # between two updates, of two iterations each
    run(train_command(vae[0], tmp_path / 'run', '--resume'))
    assert_same_state(last(tmp_path / 'run'), last(vae[1]))


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_launcher_of_two_processes(tmp_path, number):
    marker = tmp_path / 'started'
    slow = f"dict(type='SlowHook', seconds=0.5, started=r'{marker}')"
    command = ['bash', 'tools/dist_train.sh', str(write_config(tmp_path / 'slow.py', VAE, extra=slow)), '2']
    stop([*command, '--work-dir', str(tmp_path / 'run')], marker, number)
    quick = ['bash', 'tools/dist_train.sh', str(write_config(tmp_path / 'quick.py', VAE)), '2']
    run([*quick, '--work-dir', str(tmp_path / 'run'), '--resume'])
    run([*quick, '--work-dir', str(tmp_path / 'whole')])
    assert_same_state(last(tmp_path / 'run'), last(tmp_path / 'whole'))


def test_ctrl_c_saves_and_leaves_too(vae, tmp_path):
    marker = tmp_path / 'started'
    slow = f"dict(type='SlowHook', seconds=0.5, started=r'{marker}')"
    config = write_config(tmp_path / 'config.py', VAE, extra=slow)
    log = stop(train_command(config, tmp_path / 'run'), marker, signal.SIGINT, to_group=True, code=INTERRUPTED)
    assert 'Press Ctrl-C again to quit immediately' in log
    assert 'Traceback' not in log
    run(train_command(vae[0], tmp_path / 'run', '--resume'))
    assert_same_state(last(tmp_path / 'run'), last(vae[1]))


def test_processes_leave_when_their_launcher_is_killed(tmp_path):
    marker = tmp_path / 'started'
    slow = f"dict(type='SlowHook', seconds=0.5, started=r'{marker}')"
    command = ['bash', 'tools/dist_train.sh', str(write_config(tmp_path / 'slow.py', VAE, extra=slow)), '2']
    with open(tmp_path / 'log', 'w') as log:
        launcher = subprocess.Popen(
            [*command, '--work-dir', str(tmp_path / 'run')], cwd=ROOT, env=environment(), stdout=log, stderr=log
        )
    deadline = time.monotonic() + 200
    while not marker.exists():
        assert launcher.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    launcher.kill()
    launcher.wait()
    # The lock is theirs for as long as they live.
    while time.monotonic() < deadline:
        try:
            lock_folder(tmp_path / 'run').close()
            break
        except BlockingIOError:
            time.sleep(0.5)
    text = (tmp_path / 'log').read_text()
    assert 'torchrun is gone: the run saves a checkpoint' in text
    assert f'Exit code {EXIT_CODE}' in text
    quick = ['bash', 'tools/dist_train.sh', str(write_config(tmp_path / 'quick.py', VAE)), '2']
    run([*quick, '--work-dir', str(tmp_path / 'run'), '--resume'])
    run([*quick, '--work-dir', str(tmp_path / 'whole')])
    assert_same_state(last(tmp_path / 'run'), last(tmp_path / 'whole'))


def test_a_second_run_changes_nothing_of_the_first(vae, tmp_path):
    shutil.copytree(vae[1], tmp_path / 'run')
    lock = lock_folder(tmp_path / 'run')
    before = sorted(path.name for path in (tmp_path / 'run').iterdir())
    options = ('--cfg-options', 'train_dataloader.batch_size=1')
    log = run(train_command(vae[0], tmp_path / 'run', '--resume', *options), code=1)
    lock.close()
    assert f'in use by process {os.getpid()}' in log
    assert sorted(path.name for path in (tmp_path / 'run').iterdir()) == before
    assert 'batch_size=1' not in (tmp_path / 'run' / 'config.py').read_text()


def test_another_number_of_processes_sees_every_clip_once(vae, tmp_path):
    """One process with batches of 2, then two with batches of 1: the same global batch all along."""
    config = write_config(tmp_path / 'config.py', VAE)
    run(train_command(config, tmp_path / 'run', '--cfg-options', 'train_cfg.max_iters=8'))
    both = ['bash', 'tools/dist_train.sh', str(config), '2', '--work-dir', str(tmp_path / 'run'), '--resume']
    log = run([*both, '--cfg-options', 'train_dataloader.batch_size=1'])
    assert 'resumed with other settings (checkpoint -> config): processes=1 -> 2' in log
    assert 'train_dataloader.batch_size=2 -> 1' in log
    assert last(tmp_path / 'run')['message_hub']['runtime_info']['samples_seen'] == 2 * ITERATIONS


def last_path(work_dir: Path) -> Path:
    return work_dir / f'iter_{ITERATIONS}.pth'


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == 'cut':
        content = content[: len(content) // 3]
    elif how == 'empty':
        content = b''
    else:
        content[len(content) // 2] ^= 1  # one bit of a weight
    path.write_bytes(content)


@pytest.mark.parametrize('how', ['cut', 'empty', 'bit'])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(vae, tmp_path, how):
    run(train_command(vae[0], tmp_path, '--cfg-options', 'default_hooks.checkpoint.max_keep_ckpts=3'))
    damage(last_path(tmp_path), how)
    log = run(train_command(vae[0], tmp_path, '--resume'))
    assert f'iter_{ITERATIONS}.pth cannot be loaded safely' in log
    assert f'resumed epoch: 0, iter: {ITERATIONS - 2}' in log
    assert_same_state(last(tmp_path), last(vae[1]))


def test_all_damaged_is_an_error_and_no_fresh_start(vae, tmp_path):
    run(train_command(vae[0], tmp_path))
    damage(last_path(tmp_path), 'cut')
    log = run(train_command(vae[0], tmp_path, '--resume'), code=1)
    assert f'every checkpoint in {tmp_path} is damaged' in log
    assert 'Iter(train)' not in log


def test_a_full_disk_costs_nothing_but_the_checkpoints(vae, tmp_path):
    # Between two validations: workers that start meanwhile would inherit the limit, and share memory by files.
    config = write_config(tmp_path / 'config.py', VAE, extra="dict(type='FullDiskHook', begin=5, end=7)")
    log = run(train_command(config, tmp_path / 'run'))
    assert 'the checkpoint of iteration 6 could not be written: File too large' in log
    assert 'the last complete checkpoint is' in log
    assert 'iter_4.pth. Training continues' in log
    assert 'no logs of CurvesVisBackend written (File too large): the run continues' in log
    assert_same_state(last(tmp_path / 'run'), last(vae[1]))
    curves = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text()
    assert '"step": 12' in curves  # after the disk was full they go on


def test_two_runs_in_one_work_dir(vae, tmp_path):
    marker = tmp_path / 'started'
    slow = f"dict(type='SlowHook', seconds=1.0, started=r'{marker}')"
    config = write_config(tmp_path / 'config.py', VAE, extra=slow)
    first = subprocess.Popen(train_command(config, tmp_path / 'run'), cwd=ROOT, env=environment())
    try:
        while not marker.exists():
            time.sleep(0.1)
        log = run(train_command(vae[0], tmp_path / 'run'), code=1)
        assert f'{tmp_path / "run"} is in use by process {first.pid} on ' in log
    finally:
        first.kill()
        first.wait()
    run(train_command(vae[0], tmp_path / 'run', '--resume'))  # the lock went with its process


@pytest.mark.parametrize('deadly', [False, True], ids=['stuck', 'dead'])
def test_a_worker_that_does_not_come_back_ends_the_run_with_its_state(tmp_path, deadly):
    dataset = {'type': 'StuckDataset', 'at': 7, 'deadly': deadly}
    # A failure cannot wait for an update, and would lose what was accumulated.
    each = 'for wrapper in ("vae", "discriminator"):\n    optim_wrapper[wrapper].update(accumulative_counts=1)\n'
    stuck = f'train_dataloader.update(timeout=10)\ntrain_dataloader["dataset"].update({dataset})\n'
    config = write_config(tmp_path / 'config.py', VAE, more=each + stuck)
    whole = write_config(tmp_path / 'whole.py', VAE, more=each)
    start = time.monotonic()
    log = run(train_command(config, tmp_path / 'run'), code=1)
    assert time.monotonic() - start < 120
    assert 'DataWorkerError: DataLoader ' in log
    assert ('timed out after 10 seconds' if not deadly else 'exited unexpectedly') in log
    reading = 'has been reading' if not deadly else 'which has died, started to read'
    assert any(reading in line and '7' in line.split(reading)[1][:60] for line in log.splitlines()), log[-2000:]
    assert 'The state after ' in log
    run(train_command(whole, tmp_path / 'run', '--resume'))  # the same clips, which can be read now
    run(train_command(whole, tmp_path / 'whole'))
    assert_same_state(last(tmp_path / 'run'), last(tmp_path / 'whole'))


def test_a_finished_run_says_so(vae, tmp_path):
    shutil.copytree(vae[1], tmp_path / 'run')
    log = run(train_command(vae[0], tmp_path / 'run', '--resume'))
    assert f'nothing to train: the checkpoint is at iteration {ITERATIONS}' in log


def test_settings_without_effect_are_named(vae, tmp_path):
    shutil.copytree(vae[1], tmp_path / 'run')
    options = ('train_cfg.max_iters=14', 'optim_wrapper.vae.optimizer.lr=1e-5')
    log = run(train_command(vae[0], tmp_path / 'run', '--resume', '--cfg-options', *options))
    assert 'optim_wrapper.vae.optimizer.lr=0.003 -> 1e-05 (checkpoint -> config) has no effect' in log
    log = run(train_command(vae[0], tmp_path / 'run', '--resume', '--seed', '5'), code=1)
    assert 'started with seed 0 and cannot be resumed with seed 5' in log


def test_extraction_killed_at_random_moments(vae, tmp_path):
    command = [sys.executable, 'tools/extract_latents.py', str(vae[0]), str(vae[1])]
    options = (
        '--shard-size',
        '4',
        '--batch-size',
        '2',
        '--flip',
        '--cfg-options',
        'train_dataloader.dataset.length=40',
    )
    start = time.monotonic()
    run([*command, str(tmp_path / 'whole'), *options])
    duration = time.monotonic() - start
    kills = 0
    for attempt in range(40):
        process = subprocess.Popen(
            [*command, str(tmp_path / 'killed'), *options],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait = duration * (0.5 + 0.1 * attempt) if kills < 6 else 300
            assert process.wait(timeout=wait) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    print(f'{kills} kills of an extraction survived')
    assert kills > 0
    names = sorted(path.name for path in (tmp_path / 'whole').iterdir())
    assert sorted(path.name for path in (tmp_path / 'killed').iterdir() if not path.name.endswith('.tmp')) == names
    for name in names:
        a, b = ((tmp_path / folder / name).read_bytes() for folder in ('whole', 'killed'))
        assert a == b or json.loads(a) == json.loads(b), name

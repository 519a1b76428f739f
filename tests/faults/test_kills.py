"""A run that is killed and resumed ends bit-equal to one that was left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest
from runs import (
    GENERATOR,
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

pytestmark = pytest.mark.long
RANDOM_KILLS = 12


@pytest.fixture(scope='module')
def generator(vae, tmp_path_factory):
    folder = tmp_path_factory.mktemp('generator')
    config = write_config(folder / 'config.py', GENERATOR, vae=str(vae[1]))
    run(train_command(config, folder / 'whole'))
    return config, folder / 'whole'


@pytest.mark.parametrize('where', ['step:7', 'write:5', 'publish:5', 'note:5', 'write:1', 'validation:8'])
@pytest.mark.parametrize('kind', ['vae', 'generator'])
def test_killed_once(kind, where, request, tmp_path):
    config, whole = request.getfixturevalue(kind)
    run(train_command(config, tmp_path), code=-signal.SIGKILL, KILL=where)
    left = sorted(path.name for path in tmp_path.glob('*.pth'))
    iteration = int(where.split(':')[1])
    assert bool(left) == (iteration > 1), left  # with max_keep_ckpts=1, too, one is there at any moment
    run(train_command(config, tmp_path, '--resume'))
    assert_same_state(last(tmp_path), last(whole))
    assert [path.name for path in tmp_path.glob('*.pth')] == [f'iter_{ITERATIONS}.pth']
    assert not list(tmp_path.glob('*.writing'))


def test_killed_at_random_moments(vae, tmp_path):
    """Runs that are killed again and again, until there were enough kills in all; each ends as the whole one."""
    slow = f"dict(type='SlowHook', seconds=0.3, started=r'{tmp_path / 'started'}')"
    config = write_config(tmp_path / 'config.py', VAE, extra=slow)
    rng = random.Random(0)
    start = time.monotonic()
    run(train_command(config, tmp_path / 'timed'))
    duration = time.monotonic() - start
    kills = runs = 0
    while kills < RANDOM_KILLS:
        work_dir = tmp_path / f'killed{runs}'
        finished = False
        while not finished:
            process = subprocess.Popen(
                train_command(config, work_dir, '--resume'),
                cwd=ROOT,
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                # The first half goes by before the first step.
                life = rng.uniform(0.4, 0.8) * duration if kills < RANDOM_KILLS else 300
                assert process.wait(timeout=life) == 0
                finished = True
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
        runs += 1
        assert_same_state(last(work_dir), last(vae[1]))
    print(f'{kills} kills of {runs} runs survived')

"""The output of the quickstart: estimate, first iteration, warnings, and how to resume after a stop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOG = """12/01 00:00:00 - mmengine - INFO - Estimated cost for each of 1 process(es):
  memory      about 0.3 GiB, including 0.1 GiB for activations of the VAE
  time        about 5.0 minutes for 2400 iterations at these rates
12/01 00:00:00 - mmengine - INFO - iteration 1 of 2400 took 1.9 s, including start-up
12/01 00:00:00 - mmengine - WARNING - work_dirs/quickstart has 0.10 GiB free
12/01 00:00:00 - mmengine - INFO - Iter(train) [  50/2400]  eta: 0:04:00  time: 0.1  loss: 8.1  loss_mse: 6.8
"""
# A stand-in for Python: "train.py" prints a log, then works until it is stopped. A test does not handle signals.
PYTHON = f"""#!/usr/bin/env bash
case "$TESTING $*" in
    1*tools/test.py*) touch started && exec sleep 20 ;;
    *train.py*) [ -z "$TESTING" ] || exit 0 ;;
    *) exit 0 ;;
esac
trap 'echo "12/01 00:00:00 - mmengine - WARNING - the state is in iter_60.pth"; exit 130' INT
cat <<'END'
{LOG}END
touch started
[ -n "$FAIL" ] && exit 1
while true; do sleep 0.05; done
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / 'tools').mkdir()
    for name in ('quickstart.sh', 'setup_env.sh'):
        shutil.copy(ROOT / 'tools' / name, tmp_path / 'tools')
    for name in ('setup.cfg', 'setup.py', 'pyproject.toml', 'constraints.txt'):
        (tmp_path / name).touch()
    binaries = tmp_path / '.venv' / 'bin'
    binaries.mkdir(parents=True)
    (binaries / 'python').write_text(PYTHON)
    (binaries / 'python').chmod(0o755)
    (binaries / 'activate').write_text(f'PATH={binaries}:$PATH\n')
    return tmp_path


def interrupt(process: subprocess.Popen, project: Path) -> str:
    """Press Ctrl-C once the run has started, and return what was printed."""
    while not (project / 'started').exists():
        assert process.poll() is None
    time.sleep(0.3)  # bash ignores the signal while a command of its own ends
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    return process.communicate(timeout=20)[0]


def start(project: Path, **variables: str) -> subprocess.Popen:
    environment = {**os.environ, 'VENV': str(project / '.venv'), 'FAIL': '', 'TESTING': '', **variables}
    return subprocess.Popen(
        ['bash', 'tools/quickstart.sh'],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_ctrl_c_says_how_to_resume(project):
    process = start(project)
    printed = interrupt(process, project)
    assert process.returncode == 130
    lines = printed[printed.index('Training') :].splitlines()[1:]
    assert lines == [
        'estimate: about 5.0 minutes for 2400 iterations at these rates',
        'iteration 1 of 2400 took 1.9 s, including start-up',
        'WARNING: work_dirs/quickstart has 0.10 GiB free',
        'iteration [  50/2400]  left 0:04:00  loss 8.1',
        'WARNING: the state is in iter_60.pth',
        'stopped (exit code 130); run "bash tools/quickstart.sh" again to resume',
    ]


def test_ctrl_c_during_a_test_says_how_to_resume(project):
    printed = interrupt(start(project, TESTING='1'), project)
    assert printed.splitlines()[-1].startswith('stopped (exit code 130)')


def test_an_error_stops_it_with_a_word(project):
    process = start(project, FAIL='1')
    assert process.communicate(timeout=20)[0].splitlines()[-1].startswith('stopped (exit code 1)')
    assert process.returncode == 1

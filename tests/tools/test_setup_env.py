"""The environment that the scripts set up, and its build of PyTorch. Nothing is installed: python is a stub."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'


def script(path: Path, *lines: str) -> None:
    path.write_text('\n'.join(['#!/bin/bash', *lines, '']))
    path.chmod(0o755)


@pytest.fixture
def installs(tmp_path):
    """Runs setup_env with a python that writes down its arguments; returns those of each pip call, and the output."""
    binaries, log = tmp_path / 'venv' / 'bin', tmp_path / 'log'
    binaries.mkdir(parents=True)
    (binaries / 'activate').write_text(f'PATH={binaries}:$PATH\n')

    def run(gpus: int = 0, reachable: bool = True, system: str = 'Linux', **variables: str):
        refuse = '' if reachable else f'case "$*" in *{CPU_INDEX}*) exit 1 ;; esac'
        script(binaries / 'python', f'echo "$*" >> {log}', refuse)
        script(binaries / 'uname', f'echo {system}')
        listed = [f'echo "GPU {i}: NVIDIA H200"' for i in range(gpus)] or ['exit 9']
        script(binaries / 'nvidia-smi', *listed)
        environment = {**os.environ, 'VENV': str(tmp_path / 'venv'), 'PATH': f'{binaries}:{os.environ["PATH"]}'}
        environment = {name: value for name, value in environment.items() if name != 'TORCH'} | variables
        command = ['bash', '-c', '. tools/setup_env.sh; setup_env mmcv']
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        calls = log.read_text().splitlines() if log.exists() else []
        return calls, done

    return run


@pytest.mark.parametrize(
    ('settings', 'cpu'),
    [
        ({}, True),
        ({'gpus': 2}, False),
        ({'TORCH': 'cuda'}, False),
        ({'gpus': 1, 'TORCH': 'cpu'}, True),
        ({'system': 'Darwin'}, False),
    ],
)
def test_the_cpu_build_unless_there_is_a_gpu(installs, settings, cpu):
    calls, done = installs(**settings)
    assert done.returncode == 0, done.stderr
    from_index = [call for call in calls if CPU_INDEX in call]
    assert len(from_index) == cpu
    assert all(call.endswith('--no-deps torch') for call in from_index)  # everything else comes from the usual index
    assert [call.split('constraints.txt ')[1] for call in calls[cpu:]] == ['torch setuptools wheel', '-e .[mmcv]']


def test_the_usual_index_if_that_of_the_cpu_build_cannot_be_reached(installs):
    calls, done = installs(reachable=False)
    assert done.returncode == 0 and f'{CPU_INDEX} cannot be reached' in done.stdout
    assert calls[1].endswith('torch setuptools wheel')


def test_an_unknown_build_is_refused(installs):
    calls, done = installs(TORCH='rocm')
    assert done.returncode == 1 and not calls and "TORCH must be cpu or cuda, got 'rocm'" in done.stderr

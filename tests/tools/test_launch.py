"""The launcher of several processes: what it refuses, and how it ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT')


@pytest.fixture
def launch(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location('launch', ROOT / 'tools' / 'launch.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ('variables', 'message'),
    [
        ({'NODE_RANK': '1'}, 'NODE_RANK must lie in 0..NNODES - 1, got NODE_RANK=1 and NNODES=1'),
        ({'NNODES': 'two'}, 'got NODE_RANK=0 and NNODES=two'),
        ({'NNODES': '2'}, 'NNODES=2 needs MASTER_ADDR.*PORT'),
        ({'NNODES': '2', 'MASTER_ADDR': 'a'}, 'NNODES=2 needs'),
        ({'PORT': 'http'}, "PORT must be a number from 1 to 65535, got 'http'"),
        ({'PORT': '70000'}, 'PORT must be a number'),
    ],
)
def test_what_cannot_start_is_told(launch, monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        launch.settings()


def test_a_port_in_use_is_told_before_anything_starts(launch, monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setenv('PORT', port)
        monkeypatch.setattr(sys, 'argv', ['launch.py', '1', 'nothing.py'])
        assert launch.main() == 2
    assert f'PORT={port} cannot be used on this machine' in capsys.readouterr().err


def test_without_a_port_each_launch_gets_its_own(launch):
    assert launch.settings()['master-port'] != launch.settings()['master-port']


@pytest.mark.parametrize('arguments', [[], ['0', 'x.py'], ['two', 'x.py'], ['2']])
def test_usage(launch, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, 'argv', ['launch.py', *arguments])
    assert launch.main() == 2
    assert 'usage' in capsys.readouterr().err


SCRIPT = """
import os, signal, sys, time
def leave(*_):
    sys.exit(int(sys.argv[2]))
signal.signal(signal.SIGUSR1, leave)
open(os.path.join(sys.argv[1], os.environ['RANK']), 'w').close()
if sys.argv[3] == 'wait':
    time.sleep(60)
sys.exit(int(sys.argv[2]))
"""


def start(folder: Path, code: int, how: str) -> subprocess.Popen:
    script = folder / 'script.py'
    script.write_text(SCRIPT)
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, 'tools/launch.py', '2', str(script), str(folder), str(code), how]
    return subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_the_processes_and_their_exit_code_comes_back(tmp_path, number):
    process = start(tmp_path, 75, 'wait')
    while not all((tmp_path / rank).exists() for rank in '01'):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    errors = process.communicate(timeout=50)[1]
    assert process.returncode == 75
    assert 'Traceback' not in errors


@pytest.mark.parametrize('code', [0, 3])
def test_an_exit_code_comes_back(tmp_path, code):
    process = start(tmp_path, code, 'end')
    process.communicate(timeout=100)
    assert process.returncode == code

"""The launcher of several processes: what it refuses, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT')


def refused(*arguments: str, **variables: str) -> str:
    """What the launcher says, which must end before it starts anything."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    command = [sys.executable, 'tools/launch.py', *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ('variables', 'message'),
    [
        ({'NODE_RANK': '1'}, 'NODE_RANK must be in 0..NNODES - 1, got NODE_RANK=1 and NNODES=1'),
        ({'NNODES': 'two'}, 'got NODE_RANK=0 and NNODES=two'),
        ({'NNODES': '2'}, 'NNODES=2 needs MASTER_ADDR.*PORT'),
        ({'NNODES': '2', 'MASTER_ADDR': 'a'}, 'NNODES=2 needs'),
        ({'PORT': 'http'}, "PORT must be a number from 1 to 65535, got 'http'"),
        ({'PORT': '70000'}, 'PORT must be a number'),
    ],
)
def test_what_cannot_start_is_told(variables, message):
    assert re.search(message, refused('1', 'nothing.py', **variables))


def test_a_port_in_use_is_told_before_anything_starts():
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f'PORT={port} cannot be used on this machine' in refused('1', 'nothing.py', PORT=port)


@pytest.mark.parametrize('arguments', [[], ['0', 'x.py'], ['two', 'x.py'], ['2']])
def test_usage(arguments):
    assert 'usage' in refused(*arguments)


SCRIPT = """
import os, signal, sys, time
def leave(*_):
    sys.exit(int(sys.argv[2]))
signal.signal(signal.SIGUSR1, leave)
open(os.path.join(sys.argv[1], os.environ['RANK']), 'w').write(os.environ['MASTER_PORT'])
if sys.argv[3] == 'wait':
    time.sleep(60)
# Of a process that has not started when another fails, torchrun reports a signal.
while not all(os.path.exists(os.path.join(sys.argv[1], rank)) for rank in '01'):
    time.sleep(0.01)
sys.exit(int(sys.argv[2]))
"""


def start(folder: Path, code: int, how: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
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


def test_exit_codes_come_back_and_without_a_port_each_launch_gets_its_own(tmp_path):
    launches = {code: start(tmp_path / str(code), code, 'end') for code in (0, 3)}
    for code, process in launches.items():
        process.communicate(timeout=100)
        assert process.returncode == code
    ports = [{(tmp_path / str(code) / rank).read_text() for rank in '01'} for code in launches]
    assert len(ports[0]) == len(ports[1]) == 1 and ports[0] != ports[1]

"""Workers that may hang: what ends the waiting for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pvvae_plugin.datasets.checking import guarded_pool

ROOT = Path(__file__).resolve().parents[3]

INTERRUPTED = """
import signal
import threading
import time

from pvvae_plugin.datasets.checking.guarded_pool import run_guarded

if __name__ == '__main__':
    results = run_guarded(time.sleep, [0, 1000], num_workers=1, timeout=500)
    assert next(results) == (0, None)
    # As when the system hands Ctrl-C to a thread that does not wait for workers.
    threading.Timer(1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()
    try:
        next(results)
    except KeyboardInterrupt:
        print('interrupted')
"""


def exits_at_0(item):
    if item == 0:
        os._exit(3)
    return item


def test_a_worker_that_does_not_start_is_reported_with_the_limit_of_its_start(monkeypatch):
    monkeypatch.setattr(guarded_pool, 'START_SECONDS', 0)
    with pytest.raises(RuntimeError, match='a worker process could not start: not done after 0 s'):
        list(guarded_pool.run_guarded(exits_at_0, [1], num_workers=1, timeout=77))


def test_a_replacement_that_does_not_start_is_reported(monkeypatch):
    results = guarded_pool.run_guarded(exits_at_0, [1, 0, 2], num_workers=1, timeout=77)
    assert next(results) == (0, 1)
    monkeypatch.setattr(guarded_pool, 'START_SECONDS', 0)
    with pytest.raises(RuntimeError, match='a worker process could not start again: not done after 0 s'):
        next(results)


def test_ctrl_c_ends_the_wait_though_another_thread_takes_it(tmp_path):
    script = tmp_path / 'interrupted.py'
    script.write_text(INTERRUPTED)
    command, environment = [sys.executable, str(script)], {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, env=environment, timeout=100, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, 'interrupted\n'), done.stderr

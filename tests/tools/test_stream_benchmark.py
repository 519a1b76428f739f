"""The benchmark of streaming, at tiny size: what it prints, and that mistakes end it with a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, 'tools/benchmarks/stream.py', *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_row_for_each_length():
    done = run('--config', 'configs/pvvae_demo.py', '--size', '16', '--lengths', '17', '5')
    assert done.returncode == 0, done.stderr
    rows = [line.split('|')[1:-1] for line in done.stdout.splitlines() if line.startswith('| ')][1:]
    assert [int(row[0]) for row in rows] == [5, 17]
    assert float(rows[0][4]) == 1 and 0.9 < float(rows[1][4]) < 1.5


def test_a_length_that_makes_no_groups_is_said():
    done = run('--config', 'configs/pvvae_demo.py', '--size', '16', '--lengths', '6')
    assert done.returncode == 1 and 'error: 6 frames: ValueError: a clip of 6 frames does not split' in done.stderr

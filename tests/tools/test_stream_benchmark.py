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


def test_mistakes_end_with_a_line_before_anything_runs():
    done = run('--config', 'configs/pvvae_demo.py', '--size', '16', '--lengths', '5', '6')
    assert done.returncode == 1 and 'error: --lengths must be 1 + 4 k, got 6' in done.stderr
    assert not done.stdout
    done = run('--config', 'configs/pvvae_dem.py')
    assert done.returncode == 2 and 'there is no such file' in done.stderr

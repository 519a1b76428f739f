"""The benchmark of streaming, at tiny size: what it prints, and that mistakes end it with a line."""

from __future__ import annotations

import pytest

from pvvae_plugin.cli.benchmarks import stream


def test_a_row_for_each_length(capsys):
    stream.main(['--config', 'pvvae_demo', '--size', '16', '--lengths', '17', '5'])
    rows = [line.split('|')[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith('| ')][1:]
    assert [int(row[0]) for row in rows] == [5, 17]
    assert float(rows[0][4]) == 1 and 0.9 < float(rows[1][4]) < 1.5


def test_mistakes_end_with_a_line_before_anything_runs(capsys):
    with pytest.raises(SystemExit, match=r'error: --lengths must be 1 \+ 4 k, got 6'):
        stream.main(['--config', 'pvvae_demo', '--size', '16', '--lengths', '5', '6'])
    assert not capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        stream.main(['--config', 'configs/pvvae_dem.py'])
    assert ended.value.code == 2 and "no config 'configs/pvvae_dem.py'" in capsys.readouterr().err

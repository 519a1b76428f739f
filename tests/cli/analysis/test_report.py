"""The table of a test's metrics."""

import json

import pytest

from pvvae_plugin.cli.analysis import report


def test_every_number_is_printed(tmp_path, capsys):
    metrics = {
        'recon/psnr': 30.0,
        'class/accuracy': 0.75,
        'flow/loss': None,
        'mine/score': 4,
        'ltd/per_interval': [1.0],
    }
    file = tmp_path / 'metrics.json'
    file.write_text(json.dumps({'metrics': metrics, 'checkpoint': 'a.pth', 'checkpoint_sha256': 'ab' * 32}))
    report.main([str(file)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [['psnr', '30.0000'], ['class/accuracy', '0.7500'], ['flow/loss', '-'], ['mine/score', '4.0000']]
    file.write_text(json.dumps({'metrics': metrics}))
    with pytest.raises(SystemExit, match="^error: .*metrics.json has no 'checkpoint'; give a file that tools/test.py"):
        report.main([str(file)])

"""Curves of a run, read from the logs of all its launches."""

import json

import pytest

from pvvae_plugin.cli.analysis import plot_logs
from pvvae_plugin.files import read_scalars


def write_log(work_dir, launch, text):
    folder = work_dir / launch / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(text)


def test_the_log_of_a_killed_run_can_be_read(tmp_path):
    lines = [json.dumps({'step': step, 'loss': 1 / step}) for step in (1, 2)]
    write_log(tmp_path, '1', f'{lines[0]}\n{lines[1][:9]}')  # killed while it wrote its second line
    write_log(tmp_path, '2', f'{lines[1]}\n')
    assert read_scalars(tmp_path) == [{'step': 1, 'loss': 1.0}, {'step': 2, 'loss': 0.5}]
    plot_logs.main([str(tmp_path), '--panel', 'loss', '--out', str(tmp_path / 'curves.png')])
    assert (tmp_path / 'curves.png').stat().st_size
    with pytest.raises(SystemExit, match=r'^error: .* has no logged key psnr; logged: loss, step$'):
        plot_logs.main([str(tmp_path), '--panel', 'psnr'])


@pytest.mark.parametrize('text', ['{"step"\n{"step": 2}\n', '[1]\n'])
def test_other_files_are_rejected(tmp_path, text):
    write_log(tmp_path, '1', text)
    with pytest.raises(ValueError, match='is not a log with one JSON object per line'):
        read_scalars(tmp_path)

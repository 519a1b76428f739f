"""The script that trains a judge: what it keeps, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

from pvvae_plugin.cli.analysis import train_classifier
from pvvae_plugin.evaluation.motion_classifier import load_classifier


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.setattr(train_classifier, 'HELD_OUT', 14)
    return train_classifier


def test_a_judge_is_trained_once_and_kept(tool, tmp_path, capsys):
    out = tmp_path / 'folder' / 'judge.pth'
    arguments = ['configs/dit_demo.py', '--out', str(out), '--steps', '2']
    tool.main(arguments)
    printed = capsys.readouterr().out
    assert '7 classes: linear, bounce' in printed and 'of 14 (' in printed
    written_at, model = out.stat().st_mtime_ns, load_classifier(out)
    assert model.logits.out_features == 7
    tool.main(arguments)
    assert 'reusing the classifier' in capsys.readouterr().out and out.stat().st_mtime_ns == written_at
    tool.main([*arguments[:1], '--out', str(tmp_path / 'again.pth'), *arguments[3:]])
    again = load_classifier(tmp_path / 'again.pth').state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


def test_what_cannot_work_is_said_in_one_line(tool, tmp_path, capsys):
    out = tmp_path / 'judge.pth'
    tool.main(['configs/dit_demo.py', '--out', str(out), '--steps', '2'])
    for arguments, message in [
        (['configs/dit_demo.py', '--out', str(out), '--steps', '3'], 'is a classifier trained with another dataset'),
        (['configs/dit_demo.py', '--out', str(out), '--steps', '0'], '--steps must be a positive integer, got 0'),
        (['configs/dit_demo.py', '--out', str(tmp_path)], 'is a folder; give'),
        (['configs/pvvae_folder64.py', '--out', str(tmp_path / 'other.pth')], 'data/videos/train'),
    ]:
        with pytest.raises((SystemExit, ValueError, OSError)) as ended:
            tool.main(arguments)
        assert message in str(ended.value) + capsys.readouterr().err
    assert not (tmp_path / 'other.pth').exists()


@pytest.fixture
def folder_config(tmp_path, write_video):
    """Config of two classes of videos."""
    for name in ('run/a', 'run/b', 'jump/a', 'jump/b'):
        write_video(tmp_path / 'videos' / f'{name}.avi', fourcc='MJPG')
    dataset = {'type': 'VideoDataset', 'data_root': str(tmp_path / 'videos'), 'clip_len': 5}
    pipeline = [{'type': 'ResizeClip', 'size': 16}, {'type': 'CenterCropClip', 'size': 16}, {'type': 'PackClip'}]
    loader = {'dataset': {**dataset, 'pipeline': pipeline}}
    config = tmp_path / 'config.py'
    Config({'train_dataloader': loader, 'val_dataloader': loader}).dump(config)
    return config


def test_a_judge_of_other_videos_is_not_used(tool, tmp_path, folder_config, write_video, capsys):
    arguments = [str(folder_config), '--out', str(tmp_path / 'judge.pth'), '--steps', '1']
    tool.main(arguments)
    tool.main(arguments)
    assert 'reusing the classifier' in capsys.readouterr().out
    write_video(tmp_path / 'videos' / 'run' / 'a.avi', fourcc='MJPG', num_frames=9)
    with pytest.raises(ValueError, match='trained with another dataset'):
        tool.main(arguments)

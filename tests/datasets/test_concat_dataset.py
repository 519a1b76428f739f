"""Folders with different classes make one dataset."""

import pytest

from pvvae_plugin.registry import DATASETS


@pytest.fixture
def folders(tmp_path, write_video):
    for name in ('first/run/a', 'first/jump/b', 'second/walk/c', 'flat/d'):
        write_video(tmp_path / f'{name}.avi', fourcc='MJPG', num_frames=6)

    def concat(*names, **options):
        parts = [
            {'type': 'VideoDataset', 'data_root': str(tmp_path / name), 'clip_len': 5, **options} for name in names
        ]
        return DATASETS.build({'type': 'ConcatDataset', 'datasets': parts})

    return concat


@pytest.mark.parametrize('names', [('first', 'second'), ('first', 'flat'), ('flat', 'first')])
def test_classes_may_differ(folders, names):
    dataset = folders(*names)
    assert len(dataset) == 3 and 'classes' not in dataset.metainfo
    assert dataset[2]['frames'].shape == (5, 48, 64, 3)


def test_the_same_classes_are_kept(folders):
    assert folders('first', 'first').metainfo['classes'] == ('jump', 'run')
    every = ('jump', 'run', 'walk')
    assert folders('first', 'second', metainfo={'classes': every}).metainfo['classes'] == every

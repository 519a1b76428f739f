"""Clips of a .npy file."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from pvvae_plugin.registry import DATASETS


@pytest.fixture
def array(tmp_path):
    videos = np.random.default_rng(0).integers(0, 255, (3, 8, 4, 6, 3), dtype=np.uint8)
    np.save(tmp_path / 'videos.npy', videos)
    return tmp_path / 'videos.npy', videos


def build(path, **options):
    defaults = {'clip_len': 3, 'test_mode': True, 'pipeline': [{'type': 'PackClip'}]}
    return DATASETS.build({'type': 'VideoArrayDataset', 'data_root': str(path), **defaults, **options})


@pytest.mark.parametrize(
    ('options', 'frames'),
    [
        ({'test_clip': 'first'}, [0, 1, 2]),
        ({'test_clip': 'first', 'frame_interval': 3}, [0, 3, 6]),
        ({'test_clip': 'middle'}, [3, 4, 5]),
        ({'clip_len': 8}, list(range(8))),
    ],
)
def test_frames(array, options, frames):
    path, videos = array
    dataset = build(path, **options)
    assert len(dataset) == 3
    for i in range(3):
        clip = dataset[i]['inputs'].numpy().transpose(1, 2, 3, 0)
        np.testing.assert_array_equal(clip, videos[i, frames])


def test_random_test_clips_differ_between_videos_and_never_change(tmp_path):
    videos = np.arange(30, dtype=np.uint8).reshape(1, 30, 1, 1, 1).repeat(40, 0).repeat(3, 4)
    np.save(tmp_path / 'v.npy', videos)
    starts = [
        [int(item['inputs'][0, 0, 0, 0]) for item in build(tmp_path / 'v.npy', test_clip='random')] for _ in range(2)
    ]
    assert starts[0] == starts[1]
    assert len(set(starts[0])) > 10 and min(starts[0]) < 6 and max(starts[0]) > 21


def test_workers_read_the_same(array):
    path, _ = array
    dataset = build(path)
    assert len(pickle.dumps(dataset)) < 20_000  # the array is not sent to them
    for one, many in zip(dataset, DataLoader(dataset, None, num_workers=2), strict=True):
        assert (one['inputs'] == many['inputs']).all()


def test_what_is_not_an_array_of_videos_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='is not a file'):
        build(tmp_path / 'none.npy')
    (tmp_path / 'text.npy').write_text('no array')
    with pytest.raises(ValueError, match='cannot be loaded safely as an array'):
        build(tmp_path / 'text.npy')
    np.save(tmp_path / 'objects.npy', np.array([{'a': 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match='cannot be loaded safely as an array'):
        build(tmp_path / 'objects.npy')
    np.save(tmp_path / 'first.npy', np.zeros((2, 3, 8, 4, 6), np.uint8))
    with pytest.raises(ValueError, match='put the channels last'):
        build(tmp_path / 'first.npy')
    np.save(tmp_path / 'short.npy', np.zeros((2, 3, 4, 6, 3), np.uint8))
    with pytest.raises(ValueError, match='have 3 frames, but clips of 3 frames at an interval of 2 need 5'):
        build(tmp_path / 'short.npy', frame_interval=2)
    with pytest.raises(ValueError, match="test_clip must be one of middle, first, random, got 'last'"):
        build(tmp_path / 'short.npy', test_clip='last')

"""Clips that move are drawn more often, by just as much as was said, and the same ones again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pvvae_plugin.datasets import ClipIndex, MotionWeightedDataset, SyntheticVideoDataset
from pvvae_plugin.registry import DATASETS


class Flickering:
    """Clip ``i`` changes by ``levels[i]`` gray levels from frame to frame."""

    metainfo = {'classes': ('a',)}
    skipped = {}

    def __init__(self, levels):
        self.levels, self.seen = levels, []

    def __len__(self):
        return len(self.levels)

    def __getitem__(self, index):
        self.seen.append(index)
        clip = torch.zeros(3, 4, 2, 2, dtype=torch.uint8)
        clip[:, 1::2] = self.levels[index]
        return {'inputs': clip, 'number': int(index)}


def test_how_often_a_clip_is_kept_is_its_share_of_motion():
    levels, floor = [0, 2, 10], 1.0
    dataset = MotionWeightedDataset(Flickering(levels), candidates=2, floor=floor)
    counts = np.zeros(3)
    draws = 6000
    for key in range(draws):
        counts[dataset[ClipIndex(key % 3, key)]['number']] += 1
    # The first candidate is the one asked for, the second any of the three.
    weights = np.array(levels) + floor
    expected = np.zeros(3)
    for first in range(3):
        for second in range(3):
            pair = weights[[first, second]] / weights[[first, second]].sum()
            expected[first] += pair[0] / 9
            expected[second] += pair[1] / 9
    deviation = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(counts / draws - expected) < 4 * deviation).all()
    assert counts[2] > 2 * counts[0]


def test_draws_follow_from_the_key_alone():
    config = {
        'type': 'MotionWeightedDataset',
        'candidates': 3,
        'dataset': {
            'type': 'SyntheticVideoDataset',
            'length': 20,
            'clip_len': 5,
            'size': 16,
            'still_share': 0.5,
            'pipeline': [{'type': 'PackClip'}],
        },
    }
    first, again = DATASETS.build(config), DATASETS.build(config)
    keys = [ClipIndex(i, 1000 + i) for i in range(20)]
    ahead = [first[index]['inputs'] for index in keys]
    back = [again[index]['inputs'] for index in reversed(keys)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(ahead, back, strict=True))
    assert len(first) == 20 and first.metainfo['classes'] == first.dataset.metainfo['classes']
    other = [first[ClipIndex(i, 2000 + i)]['inputs'] for i in range(20)]
    assert not all(torch.equal(a, b) for a, b in zip(ahead, other, strict=True))


def test_the_size_of_a_batch_reaches_every_candidate():
    inner = Flickering([1, 2])
    MotionWeightedDataset(inner, candidates=3)[ClipIndex(1, 5, size=48)]
    assert [index.size for index in inner.seen] == [48, 48, 48] and inner.seen[0] == 1
    assert len({index.draw_key for index in inner.seen}) == 3


@pytest.mark.parametrize('arguments', [{'candidates': 0}, {'candidates': 1.5}, {'floor': 0.0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MotionWeightedDataset(Flickering([1]), **arguments)


def test_as_many_procedural_clips_are_still_as_was_asked_for():
    def clips(share):
        dataset = SyntheticVideoDataset(
            length=400, clip_len=5, size=16, still_share=share, pipeline=[{'type': 'PackClip'}], test_mode=True
        )
        return torch.stack([dataset[i]['inputs'] for i in range(400)])

    moving, some, none = clips(0.0), clips(0.7), clips(1.0)
    still = (some.float().diff(dim=2) == 0).flatten(1).all(1)
    assert still.float().mean().item() == pytest.approx(0.7, abs=4 * (0.7 * 0.3 / 400) ** 0.5)
    assert torch.equal(some[~still], moving[~still])  # the others are as they were
    assert torch.equal(some[still][:, :, 0], moving[still][:, :, 0]) and (none.float().diff(dim=2) == 0).all()
    with pytest.raises(ValueError, match=r'still_share must be in \[0, 1\], got 1.5'):
        clips(1.5)

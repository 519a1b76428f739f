from __future__ import annotations

import pytest
import torch

from pvvae_plugin.temporal import ObservedGroups, frames_to_groups, groups_to_frames


@pytest.mark.parametrize('ratio', [1, 2, 4])
def test_frames_and_groups_invert_each_other(ratio):
    for groups in range(1, 8):
        assert frames_to_groups(groups_to_frames(groups, ratio), ratio) == groups


def test_other_lengths_are_refused_with_the_nearest_valid_ones():
    with pytest.raises(ValueError, match='16 frames.*13 or 17'):
        frames_to_groups(16, 4)
    with pytest.raises(ValueError, match='0 frames'):
        frames_to_groups(0, 4)


def test_all_forms_of_observed_groups_mean_the_same():
    expected = ((True, False, False), (True, True, True))
    mask = torch.tensor(expected)
    for form in ([1, 3], torch.tensor([1, 3]), mask, mask.tolist(), [1, (True, True, True)]):
        observed = ObservedGroups.of(form, 2, 3)
        assert observed.patterns == expected and torch.equal(observed.mask, mask)
    assert ObservedGroups.of(observed, 2, 3) is observed
    for form in (None, 3, torch.tensor(3), torch.tensor([3]), [3, 3]):
        assert ObservedGroups.of(form, 2, 3).is_all
    assert not observed.is_all and observed.are_leading and observed.extents == [1, 3]
    hole = ObservedGroups.of([(True, False, True)], 1, 3)
    assert not hole.are_leading and hole.extents == [3]


@pytest.mark.parametrize(
    'wrong',
    [0, 6, torch.tensor([1, 2, 3]), torch.tensor([1.0, 2.0]), 2.7, [1, 7], [(True,), (True,)], [[False] * 5] * 2, 'ab'],
)
def test_impossible_observed_groups_are_refused(wrong):
    with pytest.raises(ValueError, match='observed'):
        ObservedGroups.of(wrong, 2, 5)


def test_masks_agree_with_a_loop():
    counts, groups, ratio = [1, 3, 5], 5, 4
    observed = ObservedGroups.of(counts, 3, groups)
    assert ObservedGroups.of([1], 1, 1).frame_mask(1).tolist() == [[True]]
    by_frame = observed.frame_mask(17)
    assert by_frame.shape == (3, 17)
    for n, count in enumerate(counts):
        for frame in range(17):
            group = 0 if frame == 0 else 1 + (frame - 1) // ratio
            assert observed.mask[n, group] == (group < count)
            assert by_frame[n, frame] == (group < count)


def test_dropped_frames_are_held_from_the_observed_ones():
    ratio, patterns = 2, [(True, False, True, False), (False, False, True, True)]
    observed = ObservedGroups.of(patterns, 2, 4)
    frames = torch.arange(7.0)
    video = torch.stack([frames, 10 + frames])[:, None, :, None, None].expand(2, 3, 7, 4, 5)
    held = observed.hold_dropped(video, ratio)
    assert held[0, 0, :, 0, 0].tolist() == [0, 0, 0, 3, 4, 4, 4]
    assert held[1, 2, :, 3, 4].tolist() == [13, 13, 13, 13, 14, 15, 16]

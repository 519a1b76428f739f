from __future__ import annotations

import pytest
import torch

from pvvae_plugin.temporal import (
    frames_to_groups,
    groups_to_frames,
    observed_counts,
    observed_frame_mask,
    observed_mask,
)


@pytest.mark.parametrize('ratio', [1, 2, 4])
def test_frames_and_groups_invert_each_other(ratio):
    for groups in range(1, 8):
        assert frames_to_groups(groups_to_frames(groups, ratio), ratio) == groups


def test_other_lengths_are_refused_with_the_nearest_valid_ones():
    with pytest.raises(ValueError, match='16 frames.*13 or 17'):
        frames_to_groups(16, 4)
    with pytest.raises(ValueError, match='0 frames'):
        frames_to_groups(0, 4)


def test_observed_counts_are_checked():
    assert observed_counts(None, 2, 5) == [5, 5]
    assert observed_counts(3, 2, 5) == [3, 3]
    assert observed_counts(torch.tensor([1, 5]), 2, 5) == [1, 5]
    for wrong in (0, 6, torch.tensor([1, 2, 3]), torch.tensor([1.0, 2.0]), 2.7):
        with pytest.raises(ValueError, match='num_observed_groups'):
            observed_counts(wrong, 2, 5)


def test_masks_agree_with_a_loop():
    counts, groups, ratio = [1, 3, 5], 5, 4
    by_group = observed_mask(counts, groups)
    by_frame = observed_frame_mask(counts, groups, ratio)
    assert by_frame.shape == (3, 17)
    for n, count in enumerate(counts):
        for frame in range(17):
            group = 0 if frame == 0 else 1 + (frame - 1) // ratio
            assert by_group[n, group] == (group < count)
            assert by_frame[n, frame] == (group < count)

import numpy as np
import pytest
import torch

from pvvae_plugin.registry import TRANSFORMS
from pvvae_plugin.structures import VideoDataSample


def numbered_clip(num_frames=5, height=12, width=16):
    """Every value different from its neighbors in time and space."""
    values = np.arange(num_frames * height * width * 3) % 251
    return values.astype(np.uint8).reshape(num_frames, height, width, 3)


def apply(frames, seed=0, **config):
    results = {'frames': frames, 'rng': np.random.default_rng(seed), 'size': config.pop('override', None)}
    return TRANSFORMS.build(config).transform(results)


@pytest.mark.parametrize(('height', 'width'), [(12, 16), (16, 12), (8, 8), (4, 40)])
@pytest.mark.parametrize('size', [6, 8, 20])
def test_resize_brings_the_short_side_to_size(height, width, size):
    frames = apply(np.full((2, height, width, 3), 90, np.uint8), type='ResizeClip', size=size)['frames']
    assert min(frames.shape[1:3]) == size
    assert max(frames.shape[1:3]) == round(max(height, width) * size / min(height, width))
    assert (frames == 90).all()


def test_resize_shrinks_by_averaging():
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    expected = frames.reshape(2, 4, 2, 6, 2, 3).mean((2, 4))
    assert np.abs(apply(frames, type='ResizeClip', size=4)['frames'] - expected).max() <= 1


def test_crops():
    frames = numbered_clip()
    center = apply(frames, type='CenterCropClip', size=8)['frames']
    np.testing.assert_array_equal(center, frames[:, 2:10, 4:12])
    corners = set()
    for seed in range(300):
        crop = apply(frames, seed, type='RandomCropClip', size=8)['frames']
        top, left = next(
            (y, x) for y in range(5) for x in range(9) if np.array_equal(frames[:, y : y + 8, x : x + 8], crop)
        )
        corners.add((top, left))
    assert len(corners) == 5 * 9
    with pytest.raises(ValueError, match='16 x 16 does not fit into frames of 12 x 16.*ResizeClip'):
        apply(frames, type='CenterCropClip', size=16)


@pytest.mark.parametrize('name', ['ResizeClip', 'RandomCropClip', 'CenterCropClip'])
def test_the_size_of_the_batch_overrides(name):
    assert min(apply(numbered_clip(), type=name, size=8, override=10)['frames'].shape[1:3]) == 10
    with pytest.raises(ValueError, match='size'):
        TRANSFORMS.build({'type': name, 'size': 0})


def test_flip_and_reverse():
    frames = numbered_clip()
    np.testing.assert_array_equal(apply(frames, type='RandomFlipClip', prob=1)['frames'], frames[:, :, ::-1])
    np.testing.assert_array_equal(apply(frames, type='RandomTimeReverse', prob=1)['frames'], frames[::-1])
    for name in ('RandomFlipClip', 'RandomTimeReverse'):
        np.testing.assert_array_equal(apply(frames, type=name, prob=0)['frames'], frames)
        changed = sum(
            not np.array_equal(apply(frames, seed, type=name, prob=0.3)['frames'], frames) for seed in range(400)
        )
        assert abs(changed - 120) < 5 * (400 * 0.3 * 0.7) ** 0.5
        with pytest.raises(ValueError, match=r'prob must be in \[0, 1\], got 1.5'):
            TRANSFORMS.build({'type': name, 'prob': 1.5})


def test_any_order_of_transforms():
    # Mirrored and reversed frames are views with negative strides.
    results = {'frames': numbered_clip(), 'rng': np.random.default_rng(0)}
    for config in (
        {'type': 'RandomTimeReverse', 'prob': 1.0},
        {'type': 'RandomFlipClip', 'prob': 1.0},
        {'type': 'ResizeClip', 'size': 24},
        {'type': 'RandomFlipClip', 'prob': 1.0},
        {'type': 'PackClip'},
    ):
        results = TRANSFORMS.build(config)(results)
    plain = TRANSFORMS.build({'type': 'ResizeClip', 'size': 24})({'frames': numbered_clip()})['frames'][::-1]
    difference = results['inputs'].permute(1, 2, 3, 0).numpy().astype(int) - plain
    assert np.abs(difference).max() <= 1


def observed(num_frames, seeds=range(300), **kwargs):
    clip = np.zeros((num_frames, 2, 2, 3), np.uint8)
    found = [apply(clip, seed, type='FutureDropSampler', **kwargs) for seed in seeds]
    assert all(results['frames'] is clip for results in found)
    return {sum(results['observed_groups']) for results in found}


def test_future_drop():
    assert observed(17) == {1, 2, 3, 4, 5}
    assert observed(17, max_drop_ratio=0.5) == {3, 4, 5}
    assert observed(17, max_drop_ratio=0.0) == {5}
    assert observed(1) == {1}
    assert observed(9, temporal_ratio=2, max_drop_ratio=0.75) == {2, 3, 4, 5}
    # 100 * 0.29 is 28.999999999999996.
    assert min(observed(101, temporal_ratio=1, max_drop_ratio=0.29)) == 101 - 29


def test_future_drop_refuses():
    for ratio in (1.5, -0.1):
        with pytest.raises(ValueError, match=f'max_drop_ratio.*{ratio}'):
            TRANSFORMS.build({'type': 'FutureDropSampler', 'max_drop_ratio': ratio})
    with pytest.raises(ValueError, match='16 frames.*13 or 17'):
        observed(16, seeds=[0])
    with pytest.raises(ValueError, match='temporal_ratio'):
        TRANSFORMS.build({'type': 'FutureDropSampler', 'temporal_ratio': 0})


def test_pack():
    frames = numbered_clip()[::-1]
    packed = apply(frames, type='PackClip')
    inputs = packed['inputs']
    assert inputs.dtype == torch.uint8
    assert inputs.shape == (3, 5, 12, 16)
    assert inputs.is_contiguous()
    np.testing.assert_array_equal(inputs[:, 2, 3, 4].numpy(), frames[2, 3, 4])
    assert isinstance(packed['data_samples'], VideoDataSample)
    assert 'observed_groups' not in packed['data_samples']

    results = {
        'frames': frames,
        'path': 'a.mp4',
        'fps': 25.0,
        'label': None,
        'draw_key': 3,
        'observed_groups': (True, True, False),
        'rng': None,
    }
    sample = TRANSFORMS.build({'type': 'PackClip'})(results)['data_samples']
    expected = {'path': 'a.mp4', 'fps': 25.0, 'label': None, 'draw_key': 3, 'observed_groups': (True, True, False)}
    assert sample.metainfo == expected


def test_transforms_alone_draw_from_torch():
    flip = TRANSFORMS.build({'type': 'RandomCropClip', 'size': 8})
    torch.manual_seed(1)
    first = flip({'frames': numbered_clip()})['frames']
    torch.manual_seed(1)
    np.testing.assert_array_equal(flip({'frames': numbered_clip()})['frames'], first)

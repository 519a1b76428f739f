import numpy as np
import pytest

from pvvae_plugin.datasets import SyntheticVideoDataset
from pvvae_plugin.datasets.synthetic.dataset import DIFFICULTIES, draw_scene
from pvvae_plugin.datasets.synthetic.motions import MOTIONS
from pvvae_plugin.datasets.synthetic.rendering import render

NUM_CLASSES = len(MOTIONS)


def clips(length, clip_len=9, size=16, **kwargs):
    dataset = SyntheticVideoDataset(length=length, clip_len=clip_len, size=size, test_mode=True, **kwargs)
    samples = [dataset[i] for i in range(length)]
    return np.stack([sample['frames'] for sample in samples]), np.array([sample['label'] for sample in samples])


def accuracy(features, labels):
    """Of a ridge regression onto the classes, trained on the first two thirds, on the rest."""
    split = 2 * len(labels) // 3
    features = features.reshape(len(features), -1).astype(float)
    features = (features - features[:split].mean(0)) / (features[:split].std(0) + 1e-6)
    features = np.c_[features, np.ones(len(features))]
    train, targets = features[:split], np.eye(NUM_CLASSES)[labels[:split]]
    weights = np.linalg.solve(train.T @ train + 30 * np.eye(train.shape[1]), train.T @ targets)
    return ((features[split:] @ weights).argmax(1) == labels[split:]).mean()


@pytest.mark.parametrize('difficulty', DIFFICULTIES)
def test_deterministic_and_moving(difficulty):
    first, labels = clips(2 * NUM_CLASSES, difficulty=difficulty, size=32)
    again, _ = clips(2 * NUM_CLASSES, difficulty=difficulty, size=32)
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.uint8
    assert first.shape == (2 * NUM_CLASSES, 9, 32, 32, 3)
    assert np.bincount(labels).tolist() == [2] * NUM_CLASSES
    # Repeating a frame is a poor prediction of the one 4 later: worse than 30 dB of PSNR in every class.
    errors = ((first[:, 4:].astype(float) - first[:, :-4]) ** 2).mean((1, 2, 3, 4))
    assert all(np.median(errors[labels == label]) > 65 for label in range(NUM_CLASSES)), errors


@pytest.mark.parametrize('difficulty', DIFFICULTIES)
def test_frame_0_does_not_depend_on_the_motion(difficulty):
    times = np.arange(5.0)
    for number in range(5):
        drawn = [render(*draw_scene(0, number, motion, times, difficulty), size=24) for motion in MOTIONS]
        for clip in drawn[1:]:
            np.testing.assert_array_equal(clip[0], drawn[0][0])
            assert (clip[4] != drawn[0][4]).any()


def test_only_motion_tells_the_class():
    frames, labels = clips(1260)
    frames = frames.astype(float)
    chance = 1 / NUM_CLASSES
    still = accuracy(frames[:, 0], labels)
    spread = (chance * (1 - chance) / (len(labels) / 3)) ** 0.5
    assert still < chance + 4 * spread
    # How frames differ from the first, from the one before, and where: coarse, so that a linear rule can see it.
    from_first = np.abs(frames[:, 1:] - frames[:, :1]).mean(4)
    from_last = np.abs(frames[:, 1:] - frames[:, :-1]).mean(4)
    changes = np.stack([from_first, from_last], 1)
    totals = changes.mean((3, 4)) / (changes.mean((2, 3, 4), keepdims=True)[..., 0, 0] + 1e-3)
    assert accuracy(totals, labels) > chance + 8 * spread


def test_seeds_share_no_clip():
    train, _ = clips(100, clip_len=1)
    val, _ = clips(100, clip_len=1, seed=1)
    both = {clip.tobytes() for clip in train} | {clip.tobytes() for clip in val}
    assert len(both) == 200


def test_frame_interval_skips_frames():
    dense, _ = clips(NUM_CLASSES, clip_len=9)
    sparse, _ = clips(NUM_CLASSES, clip_len=5, frame_interval=2)
    np.testing.assert_array_equal(sparse, dense[:, ::2])


def test_size_changes_only_the_resolution():
    small, _ = clips(NUM_CLASSES, size=16)
    large, _ = clips(NUM_CLASSES, size=64)
    averaged = large.reshape(NUM_CLASSES, 9, 16, 4, 16, 4, 3).mean((3, 5))
    assert np.abs(averaged - small).mean() < 4


@pytest.mark.parametrize('wrong', [{'difficulty': 'impossible'}, {'length': 0}, {'size': 0}, {'clip_len': 0}])
def test_wrong_arguments(wrong):
    arguments = {'length': 4, 'clip_len': 5, 'size': 16} | wrong
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SyntheticVideoDataset(**arguments)


@pytest.mark.parametrize('difficulty', ['plain', 'hard'])
def test_positions_are_where_shapes_are_seen(difficulty):
    dataset = SyntheticVideoDataset(length=21, clip_len=9, size=64, difficulty=difficulty)
    seen = 0
    for index in range(len(dataset)):
        places = dataset.positions(index)
        scene = dataset._scene(dataset.get_data_info(index))
        assert places.shape == (DIFFICULTIES[difficulty].num_objects, 9, 2)
        for number, (sprite, track) in enumerate(zip(scene.sprites, scene.tracks, strict=True)):
            if sprite.outline == 'triangle':  # whose middle is not its center
                continue
            # The shape alone, white on black.
            sprite = sprite._replace(colors=np.ones((2, 3), np.float32))
            black = scene.backdrop._replace(colors=np.zeros((2, 3), np.float32))
            light = render([sprite], [track], black, scene.camera, 64)[..., 0].astype(float)
            whole = np.abs(places[number] - 0.5).max(1) + track.radius < 0.5  # inside of the frame
            centers = (np.arange(64) + 0.5) / 64
            for t in np.flatnonzero(whole):
                mass = light[t].sum()
                x, y = (light[t].sum(0) @ centers) / mass, (light[t].sum(1) @ centers) / mass
                assert (x, y) == pytest.approx(places[number, t], abs=0.004), (index, t)
                seen += 1
    assert seen > 20

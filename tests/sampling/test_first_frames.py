"""Frames to continue are the file's first ones, framed as validation clips are."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from pvvae_plugin.datasets import ClipError
from pvvae_plugin.registry import DATASETS
from pvvae_plugin.sampling import default_num_given, find_sources, read_first_frames
from pvvae_plugin.visualization import write_video

PIPELINE = [{'type': 'ResizeClip', 'size': 20}, {'type': 'CenterCropClip', 'size': 16}, {'type': 'PackClip'}]


def config(pipeline=(), frame_interval=1):
    dataset = {'type': 'VideoDataset', 'clip_len': 9, 'frame_interval': frame_interval, 'pipeline': list(pipeline)}
    return Config({'train_dataloader': None, 'val_dataloader': {'dataset': dataset}})


@pytest.fixture
def folder(tmp_path):
    """An image, and a video of which frame t has the gray 20 * t."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'noise.png')
    grays = np.arange(10, dtype=np.uint8)[:, None, None, None] * 20
    write_video(tmp_path / 'grays.webm', np.broadcast_to(grays, (10, 24, 48, 3)).copy(), 8)
    (tmp_path / '.hidden.png').touch()
    (tmp_path / 'notes.txt').touch()
    return tmp_path


def test_an_image_is_framed_as_by_the_validation_set(folder):
    image = str(folder / 'noise.png')
    (folder / 'list.txt').write_text('noise.png\n')
    dataset = DATASETS.build(
        {
            'type': 'VideoDataset',
            'data_root': str(folder),
            'ann_file': 'list.txt',
            'clip_len': 1,
            'test_mode': True,
            'pipeline': PIPELINE,
        }
    )
    expected = dataset[0]['inputs'].float() / 127.5 - 1
    assert torch.equal(read_first_frames(config(PIPELINE), [image], 1, (16, 16)), expected[None])


def test_without_such_a_pipeline_frames_cover_the_size(folder):
    image = str(folder / 'noise.png')
    given = read_first_frames(config(), [image], 1, (30, 32))  # no scaling: the middle of the width
    pixels = np.asarray(Image.open(image))[:, 6:38].transpose(2, 0, 1)
    assert torch.equal(((given[0, :, 0] + 1) * 127.5).round().byte(), torch.from_numpy(pixels.copy()))
    assert read_first_frames(config(PIPELINE), [image], 1, (64, 32)).shape == (1, 3, 1, 64, 32)


@pytest.mark.parametrize('interval', [1, 2])
def test_the_first_frames_of_a_video_at_the_interval_of_the_clips(folder, interval):
    given = read_first_frames(config(frame_interval=interval), [str(folder / 'grays.webm')], 5, (24, 48))
    grays = (given[0].mean(dim=(0, 2, 3)) + 1) * 127.5
    assert np.allclose(grays, 20 * interval * np.arange(5), atol=4)  # a codec lies between


def test_what_a_path_stands_for(folder, monkeypatch):
    assert find_sources(str(folder)) == [str(folder / name) for name in ('grays.webm', 'noise.png')]
    assert find_sources(str(folder / 'noise.png')) == [str(folder / 'noise.png')]
    monkeypatch.chdir(folder)
    for name in ('./noise.png', f'../{folder.name}/noise.png'):
        assert find_sources(name) == [name]
    with pytest.raises(FileNotFoundError, match='no-such'):
        find_sources(str(folder / 'no-such'))
    with pytest.raises(ValueError, match='no video or image at'):
        find_sources(str(folder / 'notes.txt'))


def test_how_many_frames_are_given_unless_said():
    assert default_num_given(['a.png'], 17, 4) == 1
    assert default_num_given(['a.mp4'], 17, 4) == 9
    assert default_num_given(['a.mp4'], 9, 4) == 5
    assert default_num_given(['a.mp4'], 5, 4) == 1
    assert default_num_given(['a.mp4', 'b.png'], 17, 4) == 1


def test_unreadable_and_short_files_are_named(folder):
    (folder / 'broken.mp4').write_bytes(b'not a video')
    with pytest.raises(ClipError, match='broken.mp4'):
        read_first_frames(config(), [str(folder / 'broken.mp4')], 1, (16, 16))
    with pytest.raises(ClipError, match='noise.png.*5 first frames do not fit into 1 frames'):
        read_first_frames(config(), [str(folder / 'noise.png')], 5, (16, 16))
    with pytest.raises(ClipError, match='grays.webm.*6 first frames at an interval of 2 do not fit into 10 frames'):
        read_first_frames(config(frame_interval=2), [str(folder / 'grays.webm')], 6, (16, 16))

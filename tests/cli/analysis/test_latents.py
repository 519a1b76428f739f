"""The script that shows latents: end to end on drawn clips."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pvvae_plugin.cli.analysis import latents as tool
from pvvae_plugin.datasets import ClipError
from pvvae_plugin.registry import MODELS


@pytest.fixture
def vae_folder(tmp_path, tiny_vae_config):
    MODELS.build(tiny_vae_config).save_pretrained(tmp_path / 'vae')
    return tmp_path / 'vae'


@pytest.fixture
def clips(tmp_path, write_video):
    for name in ('a/clip.mp4', 'b/clip.mp4', 'b/other.mp4'):
        write_video(tmp_path / 'clips' / name, num_frames=14)
    np.save(tmp_path / 'clips' / 'noise.npy', np.random.default_rng(0).integers(0, 256, (13, 40, 40, 3), np.uint8))
    return tmp_path / 'clips'


def test_from_clips_to_pictures_and_numbers(vae_folder, clips, tmp_path, capsys):
    out = tmp_path / 'out'
    options = ['--num-frames', '13', '--size', '32', '40', '--num-pictures', '3']
    tool.main([str(vae_folder), '--videos', str(clips), '--out', str(out), *options])
    printed = capsys.readouterr().out
    pictures = ['pca_clip.png', 'pca_clip_2.png', 'pca_other.png']
    assert sorted(path.name for path in out.iterdir()) == sorted([*pictures, 'ltd.json', 'ltd.png'])
    for name in [*pictures, 'ltd.png']:
        assert np.asarray(Image.open(out / name).convert('RGB')).std() > 10
    record = json.loads((out / 'ltd.json').read_text())
    weights = vae_folder / 'model.safetensors'
    assert record['model']['sha256'] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert [Path(file).name for file in record['files']] == ['clip.mp4', 'clip.mp4', 'other.mp4', 'noise.npy']
    assert record['pictures'] == pictures and record['arguments']['size'] == [32, 40]
    distances, correlation = record['latent_temporal_distance'], record['correlation']
    assert distances['interval'] == [1, 2, 3] and len(distances['per_clip']) == 4
    assert correlation['num_cells'] == 4 * 3 * 2 * 3 and -1 <= correlation['value'] <= 1
    assert f'motion with change of latents {correlation["value"]:.3f}' in printed
    still = distances['of_frozen_clips']['mean']
    assert len(still) == 3 and f'interval 1  {distances["mean"][0]:8.3f}' in printed
    assert f'frozen at frame 0 {still[0]:.3f}' in printed

    tool.main([str(vae_folder), '--videos', str(clips), '--out', str(tmp_path / 'again'), *options])
    again = json.loads((tmp_path / 'again' / 'ltd.json').read_text())
    assert again['latent_temporal_distance'] == distances and again['correlation'] == correlation
    assert all((tmp_path / 'again' / name).read_bytes() == (out / name).read_bytes() for name in pictures)


def test_of_clips_that_stand_still_freezing_changes_nothing(vae_folder, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32, 3), np.uint8)
    for i, frame in enumerate(frames):
        np.save(tmp_path / f'{i}.npy', np.repeat(frame, 9, axis=0))
    videos = [str(tmp_path / f'{i}.npy') for i in range(2)]
    tool.main([str(vae_folder), '--videos', *videos, '--num-frames', '9', '--out', str(tmp_path / 'out')])
    distances = json.loads((tmp_path / 'out' / 'ltd.json').read_text())['latent_temporal_distance']
    assert distances['of_frozen_clips']['mean'] == pytest.approx(distances['mean'])
    assert distances['mean'][0] > 0  # a causal network sees more past in each frame


def test_what_cannot_work_is_said_in_one_line(vae_folder, clips, tmp_path, capsys):
    for changed, message in [
        ({'model': 'nowhere'}, 'nowhere'),
        ({'model': 'pvvae_demo'}, 'config without weights'),
        ({'videos': 'absent'}, 'no file or folder absent'),
        ({'--num-frames': '17'}, '4 of 4 files cannot be used'),
        ({'--num-frames': '12'}, 'e.g. 9 or 13'),
        ({'--size': ['0', '32']}, 'two positive integers'),
    ]:
        given = {
            'model': str(vae_folder),
            'videos': str(clips),
            '--num-frames': '13',
            '--size': ['32', '32'],
            **changed,
        }
        options = ['--videos', given['videos'], '--num-frames', given['--num-frames'], '--size', *given['--size']]
        with pytest.raises((ClipError, ValueError, OSError)) as raised:
            tool.main([given['model'], *options, '--out', str(tmp_path / 'out')])
        assert message in str(raised.value), changed
        assert not list(tmp_path.glob('out/*'))
    with pytest.raises(SystemExit):
        tool.parse_args([str(vae_folder), '--videos', 'x', '--out', 'y', '--num-clips', '0'])
    assert 'at least 1' in capsys.readouterr().err

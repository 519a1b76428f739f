"""Which files clips are taken from, and what is refused before long work."""

from __future__ import annotations

import numpy as np
import pytest

from pvvae_plugin.apis.video_input import check_lengths, find_videos


@pytest.fixture
def folder(tmp_path, write_video):
    for name, length in (('a/one.mp4', 9), ('a/b/two.mp4', 12), ('three.mp4', 5)):
        write_video(tmp_path / name, num_frames=length)
    np.save(tmp_path / 'four.npy', np.random.default_rng(0).integers(0, 256, (10, 20, 24, 3), np.uint8))
    (tmp_path / 'notes.txt').write_text('no video')
    return tmp_path


def names(files):
    return [file.name for file in files]


def test_files_and_folders_at_any_depth(folder):
    assert names(find_videos([folder])) == ['two.mp4', 'one.mp4', 'four.npy', 'three.mp4']
    assert names(find_videos([folder / 'three.mp4', folder / 'a', folder])) == [
        'three.mp4',
        'two.mp4',
        'one.mp4',
        'four.npy',
    ]
    assert names(find_videos([folder], 2)) == ['two.mp4', 'four.npy']
    with pytest.raises(FileNotFoundError, match='absent'):
        find_videos([folder, 'absent'])
    (folder / 'empty').mkdir()
    with pytest.raises(ValueError, match='no videos in'):
        find_videos([folder / 'empty'])


def test_too_short_or_broken_files_are_named(folder):
    check_lengths(find_videos([folder / 'a', folder / 'four.npy']), 9, 4)
    (folder / 'broken.mp4').write_bytes(b'no video')
    with pytest.raises(ValueError, match='2 of 5 files cannot be used: .*broken.mp4: .*three.mp4: 5 frames, needs 9'):
        check_lengths(find_videos([folder]), 9, 4)
    np.save(folder / 'floats.npy', np.zeros((9, 8, 8, 3)))
    with pytest.raises(ValueError, match=r'floats.npy: .*got float64'):
        check_lengths([folder / 'floats.npy'], 9, 4)
    with pytest.raises(ValueError, match='must be 1 [+] k [*] 4, e.g. 5 or 9'):
        check_lengths([], 8, 4)
    with pytest.raises(ValueError, match='a single latent frame.*use at least 5'):
        check_lengths([], 1, 4)


def test_what_is_left_out_is_named(tmp_path, monkeypatch, write_video):
    said = []
    monkeypatch.setattr('pvvae_plugin.apis.video_input.print_log', lambda text, **_: said.append(text))
    write_video(tmp_path / 'deep' / 'er' / 'a.mp4')
    monkeypatch.chdir(tmp_path)
    assert len(find_videos(['.'])) == 1 and not said
    (tmp_path / 'deep' / 'b.dav').write_bytes(bytes(9))
    assert len(find_videos(['.'])) == 1
    assert len(said) == 1 and '1 .dav (e.g. deep/b.dav)' in said[0]

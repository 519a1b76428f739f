"""A video file reaches a VAE frame by frame as it does whole."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from pvvae_plugin.apis import read_video, stream_frames
from pvvae_plugin.datasets import ClipError, DecordReader, iterate_frames, read_clip
from pvvae_plugin.datasets.readers.opening import READERS
from pvvae_plugin.registry import MODELS


def test_a_streamed_file_is_encoded_as_a_whole_one(tmp_path, write_video, tiny_vae_config):
    vae = MODELS.build(tiny_vae_config).eval()
    path = write_video(tmp_path / 'a.mp4', num_frames=23, size=(96, 64))
    with torch.no_grad():
        parts = [posterior.mean for posterior in vae.encode_stream(stream_frames(path, temporal_ratio=4))]
        frames, _ = read_clip(path, lambda _: range(21))
        whole = vae.encode(torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1).mean
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=1e-5, atol=1e-5)


def test_frames_cover_the_size_that_is_asked_for(tmp_path):
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 255  # the middle square
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    (frame,) = stream_frames(str(tmp_path / 'a.png'), size=(20, 20))
    torch.testing.assert_close(frame, torch.ones(1, 3, 20, 20))


def test_too_few_frames_are_refused_at_once(tmp_path, write_video):
    path = write_video(tmp_path / 'a.mp4', num_frames=5)
    with pytest.raises(ClipError, match='num_frames=9, but the file has 5'):
        stream_frames(path, num_frames=9)
    with pytest.raises(ClipError, match='no such file'):
        stream_frames(str(tmp_path / 'b.mp4'))


@pytest.mark.parametrize('size', [(-1, 5), (16, 0), (), (32, 32, 3), 32, (32.5, 32), np.array([32, 32])])
def test_sizes_that_are_none(tmp_path, write_video, size):
    path = write_video(tmp_path / 'a.mp4', num_frames=5)
    for read in (stream_frames, read_video):
        with pytest.raises(ValueError, match='two positive integers'):
            read(path, size=size)
    with pytest.raises(ValueError, match='num_frames must be a positive integer, got 0'):
        stream_frames(path, num_frames=0)


def test_another_decoder_goes_on_where_one_fails(tmp_path, write_video, monkeypatch):
    path = tmp_path / 'a.mp4'
    write_video(path, num_frames=40)
    whole = list(stream_frames(path))

    class Failing(DecordReader):
        def read(self, indices):
            if max(indices) >= 16:
                raise ClipError(self.path, 'decord: broken')
            return super().read(indices)

    monkeypatch.setitem(READERS, 'auto', (Failing, *READERS['auto'][1:]))
    monkeypatch.setitem(READERS, 'decord', (Failing,))
    frames = list(stream_frames(path))
    assert len(frames) == 40
    for frame, expected in zip(frames, whole, strict=True):
        assert (frame - expected).abs().mean() < 2 / 127.5  # decoders convert colors with different rounding
    with pytest.raises(ClipError, match='decord: broken'):
        list(iterate_frames(str(path), backend='decord'))

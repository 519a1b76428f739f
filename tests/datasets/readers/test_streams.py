"""Files whose packets are not one frame each of one video stream."""

import re
from fractions import Fraction

import numpy as np
import pytest

from pvvae_plugin.datasets import ClipError, open_video, read_clip
from pvvae_plugin.datasets.checking.verification import Entry, check_file
from pvvae_plugin.datasets.readers import OpenCVReader, PyAVReader
from pvvae_plugin.datasets.readers.packet_index import read_index

av = pytest.importorskip('av')


def write_streams(path, num=2):
    """Videos in one file: the first is gray, the others, with more bits per second, are noise."""
    rng = np.random.default_rng(0)
    with av.open(str(path), 'w') as container:
        streams = [container.add_stream('mpeg4', rate=25) for _ in range(num)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for t in range(10):
            for stream in streams:
                frame = np.full((48, 64, 3), 20 * t, np.uint8)
                if stream.index:
                    frame = rng.integers(0, 255, frame.shape, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        for stream in streams:
            container.mux(stream.encode())


@pytest.mark.parametrize('extension', ['mp4', 'mov', 'mkv', 'avi', 'ts'])
def test_every_reader_reads_the_first_video_stream(tmp_path, extension):
    path = str(tmp_path / f'a.{extension}')
    write_streams(path)
    for reader in (open_video(path), OpenCVReader(path), PyAVReader(path)):
        assert len(reader) == 10
        frames = reader.read([2, 8])
        np.testing.assert_allclose(frames.mean((1, 2, 3)), [40, 160], atol=4)
        assert frames[0].std() < 4
    with pytest.raises(ClipError, match='decord would seek'):
        open_video(path, 'decord')
    (finding,) = check_file((path, [Entry(path, None, 5)]))
    assert finding.kind == 'good', finding


@pytest.mark.parametrize('extension', ['mp4', 'mov', 'mkv', 'webm'])
def test_one_stream_is_still_read_by_decord(tmp_path, extension, write_video):
    path = write_video(tmp_path / f'a.{extension}', fourcc='VP80' if extension == 'webm' else 'mp4v')
    assert len(open_video(path, 'decord')) == 20


def write_packed(path, num_frames):
    """A DivX AVI with packed bitstream: a chunk of two frames, then one without a frame. Frame t is gray 10 * t."""
    encoder = av.CodecContext.create('mpeg4', 'w')
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 96, 64, 'yuv420p', Fraction(1, 25)
    encoder.framerate, encoder.gop_size, encoder.options = 25, 12, {'bf': '1', 'b_strategy': '0'}
    packets = []
    for t in range(num_frames):
        frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * t, np.uint8), format='rgb24')
        frame.pts, frame.time_base = t, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode()
    # In the order of storage: I, P B, P B, ... An encoder that packs says so by the last letter of its name.
    first, *others = (re.sub(rb'(?<=\x00\x00\x01\xb2)Lavc[\d.]+', b'DivX503b1393p', bytes(p)) for p in packets)
    chunks = [first, b'\x7f']  # as in HMDB51: one more chunk than frames
    for shown_later, shown_first in zip(others[::2], others[1::2], strict=True):
        chunks += [shown_later + shown_first, b'\x00\x00\x01\xb6\x50\xfa\x13\x7f']
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.codec_tag = 96, 64, 'yuv420p', 'DX50'
        for i, chunk in enumerate(chunks):
            packet = av.Packet(chunk)
            packet.pts = packet.dts = i
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, chunk[:4] == b'\0\0\1\xb0'
            container.mux(packet)
    return len(chunks)


def test_readers_agree_on_a_packed_bitstream(tmp_path):
    path = str(tmp_path / 'a.avi')
    assert write_packed(path, num_frames=21) == 22
    assert read_index(path).num_packets == 22
    with pytest.raises(ClipError, match='decord would seek'):
        open_video(path, 'decord')
    for reader in (open_video(path), OpenCVReader(path), PyAVReader(path)):
        assert len(reader) == 21
        np.testing.assert_allclose(reader.read(range(21)).mean((1, 2, 3)), 10 * np.arange(21), atol=4)
        assert abs(reader.read([20]).mean() - 200) < 4
    frames, _ = read_clip(path, lambda num_frames: [num_frames - 1, 7])
    np.testing.assert_allclose(frames.mean((1, 2, 3)), [200, 70], atol=4)
    (finding,) = check_file((path, [Entry(path, None, 21)]))
    assert finding.kind == 'good' and finding.facts['frames'] == 21, finding

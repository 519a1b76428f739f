"""Damaged and odd files, made from seeds: the same bytes in every run with the same encoders."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

NUM_FRAMES, KEY_INTERVAL, WIDTH, HEIGHT = 30, 10, 64, 48
BLOCK = 16  # pixels; a frame is 4 x 3 blocks, six bits of its number and their complements
LONGEST_HEADER = 64
# name: (codec, options of the encoder)
VIDEOS: dict[str, tuple[str, dict[str, str]]] = {
    'mpeg4.mp4': ('mpeg4', {}),
    'h264.mp4': ('libx264', {'bf': '0'}),
    'h264 b.mp4': ('libx264', {'bf': '3', 'x264-params': 'b-adapt=0:bframes=3'}),
    'h264 open.mkv': ('libx264', {'bf': '2', 'x264-params': 'open-gop=1:b-adapt=0'}),
    'h264.ts': ('libx264', {'bf': '2'}),
    'h264.flv': ('libx264', {'bf': '0'}),
    'h265.mp4': ('libx265', {'x265-params': 'bframes=2:log-level=none:pools=none:frame-threads=1'}),
    'mpeg4.avi': ('mpeg4', {'bf': '0'}),
    'mpeg4 b.mkv': ('mpeg4', {'bf': '2'}),
    'mjpeg.avi': ('mjpeg', {}),
    'mjpeg.mov': ('mjpeg', {}),
    'vp8.webm': ('libvpx', {'deadline': 'realtime', 'cpu-used': '8'}),
    'vp9.webm': ('libvpx-vp9', {'deadline': 'realtime', 'cpu-used': '8'}),
    'mpeg2.ts': ('mpeg2video', {'bf': '2'}),
    'mpeg2.mpg': ('mpeg2video', {'bf': '0'}),
}
IMAGES = ('png', 'jpg', 'webp', 'bmp', 'tif')
ODD_NAMES = (
    'two words.mp4',
    "it's.mp4",
    'say "x".mp4',
    'new\nline.mp4',
    '-i.mp4',
    '--help.mp4',
    'a:b.mp4',
    'file:a.mp4',
    'http:a.mp4',
    'concat:a|b.mp4',
    '100%.mp4',
    '%03d.mp4',
    'ä 名 \U0001f3ac.mp4',
    '$(touch x).mp4',
    '`touch x`.mp4',
    ';touch x;.mp4',
    '*.mp4',
    '[a].mp4',
    '.hidden.mp4',
    'back\\slash.mp4',
    'UPPER.MP4',
    'l' * 200 + '.mp4',
)


def numbered_frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 RGB ``(height, width, 3)`` whose gray blocks spell ``number``: frames that no tolerance confuses."""
    blocks = [(number >> (i % 6)) & 1 ^ (i >= 6) for i in range(12)]
    grid = np.array(blocks, np.float64).reshape(3, 4) * 130 + 60
    frame = cv2.resize(grid, (width, height), interpolation=cv2.INTER_NEAREST)
    shade = 20 * np.sin(np.arange(width) / 9 + number) + 10 * np.cos(np.arange(height) / 7)[:, None]
    return np.clip(frame + shade, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def write_numbered(
    path: Path,
    codec: str,
    options: dict[str, str] | None = None,
    numbers: range = range(NUM_FRAMES),
    size: tuple[int, int] = (WIDTH, HEIGHT),
    times: Callable[[int], int] = lambda index: index,
    container: dict[str, str] | None = None,
    pixel_format: str | None = None,
    file_format: str | None = None,
) -> Path:
    """Encode numbered frames by PyAV, 25 a second, a key frame every ten; ``times`` gives a frame's time in 1/25 s."""
    with av.open(str(path), 'w', options=container or {}, format=file_format) as output:
        stream = output.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format or ('yuvj420p' if codec == 'mjpeg' else 'yuv420p')
        context = stream.codec_context
        context.gop_size, context.thread_count, context.bit_rate = KEY_INTERVAL, 1, 800_000
        context.time_base = Fraction(1, 25)
        for index, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, *size), format='rgb24')
            frame.pts, frame.time_base = times(index), Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_sources(folder: Path) -> dict[str, Path]:
    """The undamaged files by name: videos of every codec that PyAV can encode here, and images."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = {}
    for name, (codec, options) in VIDEOS.items():
        if codec in av.codecs_available:
            sources[name] = write_numbered(folder / name, codec, options)
    for fourcc, name in (('XVID', 'opencv xvid.avi'), ('MJPG', 'opencv mjpg.avi'), ('mp4v', 'opencv.mp4')):
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*fourcc), 25, (WIDTH, HEIGHT))
        for number in range(NUM_FRAMES):
            writer.write(numbered_frame(number)[..., ::-1])
        writer.release()
        sources[name] = folder / name
    for kind in IMAGES:
        path = folder / f'image.{kind}'
        path.write_bytes(cv2.imencode(f'.{kind}', numbered_frame(11, 128, 96)[..., ::-1])[1].tobytes())
        sources[path.name] = path
    return sources


def flip_bits(data: bytes, count: int, rng: np.random.Generator, start: float = 0, stop: float = 1) -> bytes:
    """``count`` bits between two places, given as shares of the length, the other way round."""
    damaged = bytearray(data)
    low, high = int(start * len(data)), max(int(stop * len(data)), int(start * len(data)) + 1)
    for position in rng.integers(low, high, count):
        damaged[position] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def damages(data: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what is made of one file."""
    size = len(data)
    for share in (0.03, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.97):
        yield f'cut at {share}', data[: int(size * share)]
    yield 'cut by a byte', data[:-1]
    for place, (start, stop) in {'start': (0, 0.05), 'middle': (0.3, 0.7), 'end': (0.9, 1)}.items():
        for turn in range(2):
            yield f'a bit at the {place} {turn}', flip_bits(data, 1, rng, start, stop)
        yield f'8 bits at the {place}', flip_bits(data, 8, rng, start, stop)
    yield '3 bits anywhere', flip_bits(data, 3, rng)
    yield '1 byte in 200', flip_bits(data, max(1, size // 200), rng)
    for place in (0.3, 0.6, 0.85):
        start, length = int(size * place), max(16, size // 20)
        yield f'zeros at {place}', data[:start] + bytes(length) + data[start + length :]
    yield 'noise at 0.5', data[: size // 2] + rng.bytes(size // 30) + data[size // 2 + size // 30 :]
    yield 'noise in front', rng.bytes(LONGEST_HEADER) + data[LONGEST_HEADER:]
    yield 'a piece missing', data[: size // 2] + data[size // 2 + size // 25 :]
    yield 'a piece twice', data[: size // 2] + data[size // 3 :]
    yield 'twice', data + data
    yield 'rubbish behind', data + rng.bytes(500)


def mutated_files(sources: dict[str, Path], folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the damaged files and the odd ones; the kind of each, and its path."""
    for number, (name, source) in enumerate(sources.items()):
        data = source.read_bytes()
        yield f'{name}: whole', _write(folder / 'whole' / name, data)
        rng = np.random.default_rng(number)
        for kind, content in damages(data, rng):
            target = folder / 'damaged' / kind.replace(' ', '_') / name
            yield f'{name}: {kind}', _write(target, content)
    yield from _odd_files(sources, folder / 'odd')


def _odd_files(sources: dict[str, Path], folder: Path) -> Iterator[tuple[str, Path]]:
    folder.mkdir()
    video = sources['mpeg4.mp4'].read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('a.mp4', video)
    others = {
        'empty.mp4': b'',
        'empty.png': b'',
        'one byte.avi': b'\x00',
        'zeros.mp4': bytes(10_000),
        'text.mp4': b'this is no video\n' * 50,
        'zip.mp4': archive.getvalue(),
        'png.mp4': sources['image.png'].read_bytes(),
        'jpg.avi': sources['image.jpg'].read_bytes(),
        'mp4.png': video,
        'avi.mp4': sources['mpeg4.avi'].read_bytes(),
        'mkv.avi': sources['mpeg4 b.mkv'].read_bytes(),
        'two films.mp4': video + sources['opencv.mp4'].read_bytes(),
        'noise.mkv': np.random.default_rng(0).bytes(5000),
    }
    for name, content in others.items():
        yield name, _write(folder / name, content)
    for name in ODD_NAMES:
        yield f'named {name!r}', _write(folder / 'names' / name, video)
    for size in ((66, 50), (2, 2), (16, 16), (130, 34)):
        yield f'size {size}', write_numbered(folder / f'{size[0]}x{size[1]}.avi', 'mpeg4', size=size)
    odd = {'pixel_format': 'yuv444p'}
    yield 'odd size', write_numbered(folder / '65x49.mp4', 'libx264', size=(65, 49), **odd)
    yield 'odd size, mjpeg', write_numbered(folder / '65x49.avi', 'mjpeg', size=(65, 49))
    for name, codec in (('one.mp4', 'libx264'), ('one.avi', 'mpeg4'), ('one.webm', 'libvpx')):
        yield name, write_numbered(folder / name, codec, numbers=range(1))
    for suffix, codec in (('mp4', 'libx264'), ('mkv', 'mpeg4'), ('webm', 'libvpx'), ('mov', 'mjpeg')):
        jumps = np.random.default_rng(1).integers(1, 9, NUM_FRAMES).cumsum()
        path = folder / f'vfr.{suffix}'
        yield path.name, write_numbered(path, codec, times=lambda index, jumps=jumps: int(jumps[index]))
        path = folder / f'late.{suffix}'
        yield path.name, write_numbered(path, codec, times=lambda index: 100 + index)
        path = folder / f'gap.{suffix}'
        yield path.name, write_numbered(path, codec, times=lambda index: index + 1000 * (index >= 15))
    fast = write_numbered(folder / 'faststart.mp4', 'libx264', container={'movflags': 'faststart'}).read_bytes()
    yield 'faststart.mp4', folder / 'faststart.mp4'
    for share in (0.3, 0.5, 0.7, 0.9):
        yield f'faststart, cut at {share}', _write(folder / f'faststart {share}.mp4', fast[: int(len(fast) * share)])
    path = folder / 'fragments.mp4'
    fragmented = write_numbered(path, 'libx264', container={'movflags': 'frag_keyframe+empty_moov'}).read_bytes()
    yield path.name, path
    yield 'fragments, cut', _write(folder / 'fragments cut.mp4', fragmented[: len(fragmented) // 2])
    for skipped in (1, 5, 12):
        path = folder / f'edit list {skipped}.mp4'
        yield path.name, _write(path, _skip_by_edit_list(sources['h264 b.mp4'].read_bytes(), skipped))
    yield from _changes_of_size(folder)
    yield from _huge(sources, folder)
    yield from _links(sources, folder)


def _changes_of_size(folder: Path) -> Iterator[tuple[str, Path]]:
    for codec in ('mpeg2video', 'libx264'):
        parts = [
            write_numbered(folder / f'part {codec} {size[0]}.ts', codec, size=size).read_bytes()
            for size in ((WIDTH, HEIGHT), (96, 80))
        ]
        for order, name in ((parts, 'grows'), (parts[::-1], 'shrinks')):
            yield f'{codec} {name}', _write(folder / f'{codec} {name}.ts', b''.join(order))
    path = folder / 'mjpeg grows.avi'
    with av.open(str(path), 'w') as output:
        stream = output.add_stream('mjpeg', rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuvj420p'
        output.start_encoding()
        for index in range(NUM_FRAMES):
            size = (WIDTH, HEIGHT) if index < 15 else (96, 80)
            jpeg = cv2.imencode('.jpg', numbered_frame(index, *size))[1].tobytes()
            packet = av.Packet(jpeg)
            packet.pts = packet.dts = index
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
            output.mux(packet)
    yield path.name, path


def _huge(sources: dict[str, Path], folder: Path) -> Iterator[tuple[str, Path]]:
    """Headers that promise pictures of thousands of megapixels."""
    for name in ('mjpeg.avi', 'mpeg4.avi', 'opencv xvid.avi'):
        data = bytearray(sources[name].read_bytes())
        at = data.index(b'strf') + 8  # BITMAPINFOHEADER
        for width, height in ((16000, 16000), (60000, 60000)):
            data[at + 4 : at + 12] = struct.pack('<ii', width, height)
            yield f'{name}, header says {width}', _write(folder / f'huge {width} {name}', bytes(data))
    data = bytearray(sources['mpeg4.mp4'].read_bytes())
    at = data.index(b'mp4v', data.index(b'stsd')) + 28
    data[at : at + 4] = struct.pack('>HH', 65000, 65000)
    yield 'mp4, header says 65000', _write(folder / 'huge.mp4', bytes(data))
    for side in (12_000, 30_000, 100_000):
        yield f'png of {side}', _write(folder / f'huge {side}.png', _png_header(side, 10))
    rows = zlib.compress(bytes((1 + 20_000 * 3) * 20_000), 1)
    yield 'png bomb', _write(folder / 'bomb.png', _png(20_000, rows))
    for kind in ('bmp', 'jpg', 'webp', 'tif'):
        data = bytearray(sources[f'image.{kind}'].read_bytes())
        if kind == 'bmp':
            data[18:26] = struct.pack('<ii', 30_000, 30_000)
        elif kind == 'jpg':
            at = data.index(b'\xff\xc0') + 5
            data[at : at + 4] = struct.pack('>HH', 60_000, 60_000)
        else:
            continue
        yield f'{kind}, header says much', _write(folder / f'huge.{kind}', bytes(data))
    path = folder / 'rawvideo.avi'
    write_numbered(path, 'rawvideo', pixel_format='bgr24', numbers=range(5))
    data = bytearray(path.read_bytes())
    at = data.index(b'strf') + 8
    data[at + 4 : at + 12] = struct.pack('<ii', 16000, 16000)
    yield path.name, path
    yield 'rawvideo, header says 16000', _write(folder / 'huge raw.avi', bytes(data))


def _links(sources: dict[str, Path], folder: Path) -> Iterator[tuple[str, Path]]:
    loop = folder / 'loop.mp4'
    loop.symlink_to(loop.name)
    yield 'a loop of links', loop
    link = folder / 'link.mp4'
    link.symlink_to(sources['mpeg4.mp4'])
    yield 'a link', link
    dangling = folder / 'dangling.mp4'
    dangling.symlink_to('nowhere.mp4')
    yield 'a link to nothing', dangling
    fifo = folder / 'fifo.mp4'
    os.mkfifo(fifo)
    yield 'a pipe', fifo
    device = folder / 'device.mp4'
    device.symlink_to('/dev/zero')
    yield 'a device', device
    inside = folder / 'folder.mp4'
    inside.mkdir()
    yield 'a folder', inside
    yield 'missing', folder / 'missing.mp4'
    if os.geteuid() != 0:  # root may read everything
        secret = _write(folder / 'secret.mp4', sources['mpeg4.mp4'].read_bytes())
        secret.chmod(0)
        yield 'no permission', secret


def _skip_by_edit_list(data: bytes, frames: int) -> bytes:
    """The same mp4, with ``frames`` of its first frames left out by its edit list."""
    damaged = bytearray(data)
    at = damaged.index(b'elst') + 12  # version and flags, number of entries; then duration and time of the first
    scale = struct.unpack('>I', damaged[damaged.index(b'mdhd') + 16 : damaged.index(b'mdhd') + 20])[0]
    time = struct.unpack('>i', damaged[at + 4 : at + 8])[0]
    damaged[at + 4 : at + 8] = struct.pack('>i', time + frames * scale // 25)
    return bytes(damaged)


def _png_header(side: int, rows: int) -> bytes:
    return _png(side, zlib.compress(bytes((1 + side * 3) * rows), 1))


def _png(side: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path

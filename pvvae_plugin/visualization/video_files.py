"""Writing clips as GIF and WebM files, which browsers play."""

from __future__ import annotations

import io
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pvvae_plugin.files import publish, write_atomically

# Browsers show GIF frames shorter than 0.02 s for 0.1 s instead.
MAX_GIF_FPS = 50
_console = threading.Lock()  # standard error belongs to the whole process
PALETTE_PIXELS = 1 << 20
HEADER_BYTES = 1 << 12
TEMPORARY = '.unfinished-'  # prefix of partial files, which a killed process may leave behind


def encode_gif(frames: np.ndarray, fps: float) -> bytes:
    """Encode a looping GIF. All frames share one palette, so still regions do not flicker.

    GIF counts time in hundredths of a second. Frame durations are rounded such that the total length is kept: at 8
    frames per second they alternate between 0.12 and 0.13 s. Identical consecutive frames are stored once.

    Args:
        frames: uint8 ``(T, H, W, 3)``.
        fps: Frames per second, above 0 and at most 50.

    Returns:
        Content of the file.

    Raises:
        ValueError: If ``frames`` has another shape or dtype, or ``fps`` is out of range.

    Example:
        >>> from pvvae_plugin.visualization import encode_gif
        >>> encode_gif(np.zeros((5, 32, 32, 3), np.uint8), fps=8)[:6]
        b'GIF89a'
    """
    _check(frames, fps)
    if fps > MAX_GIF_FPS:
        raise ValueError(f'fps={fps} is too high for a GIF, which allows at most {MAX_GIF_FPS}; use write_video')
    palette = _shared_palette(frames)
    # no dithering: its noise would flicker in still regions
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    ends = [round(100 * (t + 1) / fps) for t in range(len(frames))]
    durations = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]  # milliseconds
    buffer = io.BytesIO()
    images[0].save(
        buffer, 'GIF', save_all=True, append_images=images[1:], duration=durations, loop=0, disposal=1, optimize=False
    )
    return buffer.getvalue()


def write_gif(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write a looping GIF atomically. See :func:`encode_gif`.

    Example:
        >>> from PIL import Image
        >>> from pvvae_plugin.visualization import write_gif
        >>> frames = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.full((1, 32, 32, 3), 50, np.uint8)
        >>> write_gif('clip.gif', frames, fps=8)
        >>> Image.open('clip.gif').n_frames
        5
    """
    write_atomically(path, encode_gif(frames, fps))


def write_video(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write a WebM video atomically (VP9, or VP8 if OpenCV lacks VP9).

    Browsers play WebM. ``.mp4`` is not supported because OpenCV from PyPI cannot write H.264. The same frames give
    byte-identical files. Color is stored at half resolution (4:2:0), as in most videos.

    Args:
        path: File ending in ``.webm``.
        frames: uint8 ``(T, H, W, 3)`` with even H and W.
        fps: Frames per second.

    Raises:
        ValueError: If the extension, the shape or dtype of ``frames``, or ``fps`` is invalid.
        RuntimeError: If this OpenCV can write neither codec.

    Example:
        >>> from pvvae_plugin.datasets import open_video
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> reader = open_video('clip.webm')
        >>> len(reader), reader.fps
        (20, 8.0)
    """
    _check(frames, fps)
    path = Path(path)
    if path.suffix.lower() != '.webm':
        raise ValueError(f'write_video writes .webm files, got {path.name!r}')
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(
            f'frames need an even height and width, got {height} x {width}; pad or crop them, or OpenCV drops the last '
            'row or column'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # the temporary file keeps the suffix, because OpenCV chooses the container by it
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=TEMPORARY) as folder:
        temporary = Path(folder) / path.name
        writer = _open_writer(temporary, fps, (width, height))
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))  # OpenCV expects BGR
        writer.release()
        temporary.write_bytes(_without_random_number(temporary.read_bytes()))
        publish(temporary, path)


def _without_random_number(webm: bytes) -> bytes:
    """Replace the random track number that FFmpeg writes (8 bytes, TrackUID and TagTrackUID) by 1."""
    header = webm[:HEADER_BYTES]
    if found := re.search(rb's\xc5\x88(.{8})', header, flags=re.DOTALL):
        for element in (b's\xc5\x88', b'c\xc5\x88'):
            header = header.replace(element + found[1], element + bytes(7) + b'\x01')
    return header + webm[HEADER_BYTES:]


def _shared_palette(frames: np.ndarray) -> Image.Image:
    """Compute a palette by median cut over pixels sampled evenly from all frames."""
    pixels = frames.reshape(-1, 3)
    pixels = pixels[:: max(1, len(pixels) // PALETTE_PIXELS)]
    return Image.fromarray(np.ascontiguousarray(pixels[None])).quantize(256, Image.Quantize.MEDIANCUT)


def _open_writer(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    for codec in ('VP90', 'VP80'):
        with _without_console():  # OpenCV warns about an unsupported tag, then picks the right one itself
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
        if writer.isOpened():
            return writer
    raise RuntimeError(
        f'OpenCV {cv2.__version__} cannot write .webm (neither VP9 nor VP8): install opencv-python or '
        'opencv-python-headless from PyPI, whose FFmpeg has both, or write a GIF'
    )


@contextmanager
def _without_console() -> Iterator[None]:
    """Discard everything that C code writes to standard error."""
    with _console:
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)


def _check(frames: np.ndarray, fps: float) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f'frames must be uint8 (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape}')
    if not fps > 0:
        raise ValueError(f'fps must be positive, got {fps}')

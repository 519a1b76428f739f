"""What a file really shows: a slow reader that is none of ours, and how far a clip is from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from mutations import IMAGES, numbered_frame

from pvvae_plugin.datasets import ClipError, read_clip

# Gray levels, the largest mean difference of an 8 x 8 block: undamaged frames of different decoders are within 4, two
# frames of different numbers at least 100 apart.
TOLERANCE = 12
CLIP_LEN = 5
POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


def reference(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """All frames of a file as PyAV decodes them from the first on, and what it complained of.

    An image is one frame, decoded by Pillow, which refuses what is cut off.

    Returns:
        uint8 RGB ``(H, W, 3)`` frames, and errors: nothing for a whole file.
    """
    if path.suffix.lower().lstrip('.') in (*IMAGES, 'jpeg', 'tiff'):
        return _reference_image(path)
    frames: list[np.ndarray] = []
    errors: list[str] = []
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture() as logs:
        try:
            with av.open(str(path.absolute())) as container:
                stream = container.streams.video[0]
                stream.thread_count = 1
                _decode(container, stream, frames, errors)
        except (av.FFmpegError, IndexError, OSError, ValueError) as error:
            errors.append(str(error))
    av.logging.set_level(None)
    return frames, errors + [f'{name}: {message.strip()}' for level, name, message in logs if level <= av.logging.ERROR]


def _decode(container: Any, stream: Any, frames: list[np.ndarray], errors: list[str]) -> None:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            errors.append(f'demuxing: {error}')
            return
        try:
            decoded = packet.decode()
        except av.FFmpegError as error:
            errors.append(f'decoding: {error}')
            continue
        for frame in decoded:
            if frame.is_corrupt:
                errors.append(f'frame {len(frames)} is corrupt')
            frames.append(frame.to_ndarray(format='rgb24'))


def _reference_image(path: Path) -> tuple[list[np.ndarray], list[str]]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return [np.asarray(image.convert('RGB'))], []
    except Exception as error:
        return [], [f'{type(error).__name__}: {error}']


def difference(frames: np.ndarray, expected: np.ndarray) -> float:
    """The largest mean difference of any 8 x 8 block of any frame, in gray levels; infinite if shapes differ."""
    if frames.shape != expected.shape:
        return float('inf')
    found = np.abs(frames.astype(np.float32) - expected).mean(axis=-1)  # (T, H, W)
    return max(
        float(cv2.resize(f, (-(-f.shape[1] // 8), -(-f.shape[0] // 8)), interpolation=cv2.INTER_AREA).max())
        for f in found
    )


class Verdict(NamedTuple):
    """What a reader made of one clip.

    Attributes:
        kind: ``'right'``, equal to the reference's frames at the indices asked for; ``'shifted'``, equal to others of
            its frames in a row, where damaged frames are counted differently; ``'concealed'``, other than the
            reference only where that shows a damaged picture or an old one again; ``'skipped'``, a ClipError that names
            the file; or ``'wrong'``.
        detail: In words.
        damaged: Whether the clip shows a damaged picture, or one that the reference has not.
    """

    kind: str
    detail: str
    damaged: bool


class Judgment(NamedTuple):
    """Of one file: a verdict for each backend and position, and the most memory that reading took, in bytes."""

    verdicts: dict[tuple[str, float], Verdict]
    memory: int


def judge(item: tuple[str, str, Sequence[str]]) -> Judgment:
    """Read clips of a file in all ways: ``(kind, path, backends)``."""
    _, path, backends = item
    length = 1 if Path(path).suffix.lower().lstrip('.') in IMAGES else CLIP_LEN
    ways = [(backend, position) for backend in backends for position in POSITIONS]
    before = _forget_peak()
    found = {way: _read(path, *way, length) for way in ways}
    memory = _memory('VmHWM') - before
    frames = reference(Path(path))[0] if os.path.isfile(path) else []
    verdicts = {way: clip if isinstance(clip, Verdict) else _verdict(*clip, frames) for way, clip in found.items()}
    return Judgment(verdicts, memory)


def _forget_peak() -> int:
    """Let the peak of memory begin anew; what is in use now."""
    Path('/proc/self/clear_refs').write_text('5')
    return _memory('VmRSS')


def _memory(name: str) -> int:
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def number_of(frame: np.ndarray) -> int | None:
    """Which of the numbered frames this is, of whatever size; None if it is damaged."""
    height, width = frame.shape[:2]
    small = cv2.resize(frame[..., 1], (4, 3), interpolation=cv2.INTER_AREA).ravel() > 125
    number = sum(int(bit) << i for i, bit in enumerate(small[:6]))
    return number if difference(frame[None], numbered_frame(number, width, height)[None]) <= TOLERANCE else None


def _read(path: str, backend: str, position: float, length: int) -> Verdict | tuple[np.ndarray, list[int]]:
    """A clip and the indices of its frames, or why there is none."""
    indices: list[int] = []

    def choose(num_frames: int) -> list[int]:
        if num_frames < length:
            raise ClipError(path, f'only {num_frames} frames')
        start = int(position * (num_frames - length))
        indices[:] = range(start, start + length)
        return list(indices)

    try:
        clip, _ = read_clip(path, choose, backend)
    except ClipError as error:
        named = error.path in (path, repr(path))
        return Verdict('skipped' if named else 'wrong', str(error), False)
    return clip, indices


def _verdict(clip: np.ndarray, indices: list[int], expected: list[np.ndarray]) -> Verdict:
    numbers = [number_of(frame) for frame in clip]
    damaged = len(clip) > 1 and None in numbers
    detail = f'frames from {indices[0]} are numbers {numbers}; the reference has {[number_of(f) for f in expected]}'
    kind = 'wrong'
    for shift in sorted(range(-indices[0], len(expected) - indices[-1]), key=abs):
        others = _others(clip, expected, indices[0] + shift)
        if not others:
            return Verdict('shifted' if shift else 'right', detail, damaged)
        if abs(shift) <= 2 and all(_is_damaged(expected, indices[0] + shift + i) for i in others):
            kind = 'concealed'
    return Verdict(kind, detail, True)


def _others(clip: np.ndarray, expected: list[np.ndarray], start: int) -> list[int]:
    """Which frames of a clip are other than those of the reference from ``start`` on."""
    return [i for i, frame in enumerate(clip) if _distance(frame, expected[start + i]) > TOLERANCE]


def _is_damaged(expected: list[np.ndarray], index: int) -> bool:
    """Whether the reference itself shows a damaged picture there, or an old one again."""
    number = number_of(expected[index])
    return number is None or number <= max((n for n in map(number_of, expected[:index]) if n is not None), default=-1)


def _distance(frame: np.ndarray, expected: np.ndarray) -> float:
    # Where the size changes within a video, decoders bring all frames to the first one's.
    if frame.shape != expected.shape:
        expected = cv2.resize(expected, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return difference(frame[None], expected[None])

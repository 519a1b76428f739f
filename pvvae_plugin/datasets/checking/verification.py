"""Verification of datasets: find files that training would skip, hang or crash on, or decode incorrectly."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np

from pvvae_plugin.functional.keyed_random import numpy_rng

from ..clip_dataset import ClipDataset
from ..errors import ClipError
from ..readers import ImageReader, OpenCVReader, PyAVReader
from ..readers.base import find_segment, is_image, seconds_from_first
from ..readers.decord_reader import DecordReader
from ..readers.opening import check_readable, needs_pyav
from ..readers.packet_index import read_header, read_index
from ..video_dataset import VideoDataset
from .guarded_pool import Lost, run_guarded

KINDS = {
    'missing': 'does not exist, or is not a regular file',
    'unreadable': 'no decoder can read it',
    'short': 'fewer frames than a clip needs',
    'damaged': 'a decoder reports errors, or frames are missing',
    'differs': 'decoders return different frames',
    'hung': 'not read within the time limit',
    'crashed': 'crashed the process that read it',
    'failed': 'an error of the dataset itself',
}
BLOCK = 8  # frames are compared by the means of squares with this side, in pixels
# Gray levels. Decoders convert colors differently: the largest difference was 8 on real footage, 16 on 10-bit video.
TOLERANCE = 24.0
NUM_SEEKS, FRAMES_A_SEEK = 8, 3
MEMORY = 8 << 30  # bytes of address space in addition to a worker's initial memory
UNEVEN = 1.5  # ratio of frame durations above which the frame rate is called variable
BY_PYAV = 'decoded by PyAV only'  # the errors of the other decoders do not count then
_LOG_ERRORS = '16'  # AV_LOG_ERROR


@dataclass(frozen=True)
class Entry:
    """Clip of a file that a dataset uses.

    Attributes:
        name: The ``path`` of the clip.
        segment: Start and end in seconds, or None for the whole file.
        span: Number of frames from the first to the last frame of the clip.
    """

    name: str
    segment: tuple[float, float] | None
    span: int


@dataclass
class Finding:
    """Result for one file or clip.

    Attributes:
        path: Path of the file or clip.
        kind: ``'good'`` or one of ``KINDS``.
        reason: Description of the problem.
        facts: ``frames``, ``width``, ``height``, ``fps`` and ``notes`` of a video, as far as known.
    """

    path: str
    kind: str = 'good'
    reason: str = ''
    facts: dict[str, Any] = field(default_factory=dict)


def verify(datasets: Sequence[ClipDataset], num_workers: int, timeout: float) -> Iterator[list[Finding]]:
    """Read all files and clips of datasets in guarded processes. Each file of a VideoDataset is read once.

    Args:
        datasets: Datasets of clips. Files of a :class:`VideoDataset` are fully decoded by both decoders. For other
            datasets, each clip is loaded once.
        num_workers: Number of processes.
        timeout: Seconds per file, or per clip of other datasets.

    Yields:
        Findings of one file, in the order of completion: one finding per clip (such as a segment that is too short),
        or a single finding if the file itself is bad.
    """
    files = _files_of(dataset for dataset in datasets if isinstance(dataset, VideoDataset))
    for index, found in run_guarded(check_file, list(files.items()), num_workers, timeout, MEMORY):
        path = list(files)[index] if isinstance(found, Lost) else ''
        yield [Finding(path, *found)] if isinstance(found, Lost) else found
    for dataset in datasets:
        if isinstance(dataset, VideoDataset):
            continue
        load = partial(check_clip, dataset)
        for index, found in run_guarded(load, range(len(dataset)), num_workers, timeout, MEMORY):
            lost = isinstance(found, Lost)
            yield [Finding(dataset.get_data_info(index)['path'], *found) if lost else found]


def count_steps(datasets: Sequence[ClipDataset]) -> int:
    """Return the number of items that :func:`verify` yields."""
    files = _files_of(dataset for dataset in datasets if isinstance(dataset, VideoDataset))
    return len(files) + sum(len(dataset) for dataset in datasets if not isinstance(dataset, VideoDataset))


def _files_of(datasets: Iterable[VideoDataset]) -> dict[str, list[Entry]]:
    files: dict[str, list[Entry]] = {}
    for dataset in datasets:
        span = (dataset.clip_len - 1) * dataset.frame_interval + 1
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            entry = Entry(info['path'], info.get('segment'), span)
            entries = files.setdefault(info.get('file', info['path']), [])
            if entry not in entries:
                entries.append(entry)
    return files


def check_clip(dataset: ClipDataset, index: int) -> Finding:
    """Load one clip of a dataset."""
    info = dataset.get_data_info(index)
    try:
        frames = dataset.load_clip(info, numpy_rng('verify', index))
    except (ClipError, OSError) as error:
        return Finding(info['path'], 'unreadable', str(getattr(error, 'reason', error)))
    dataset._check_frames(frames, info['path'])
    return Finding(info['path'])


def check_file(item: tuple[str, Sequence[Entry]]) -> list[Finding]:
    """Decode a whole file with both decoders and compare their frames. Redirects this process's stdout and stderr."""
    path, entries = item
    try:
        check_readable(path)
    except ClipError as error:
        exists = os.path.isfile(path) and os.path.getsize(path) > 0
        return [Finding(path, 'unreadable' if exists else 'missing', error.reason)]
    if is_image(path):
        return [_check_image(path)]
    facts: dict[str, Any] = {}
    with _captured_errors() as errors:
        finding = _check_video(path, facts)
    if finding.kind == 'good' and errors and not any(note.startswith(BY_PYAV) for note in facts['notes']):
        finding = Finding(path, 'damaged', f'the decoders report: {"; ".join(errors)}')
    finding.facts = {name: value for name, value in facts.items() if name != 'times'}
    if finding.kind != 'good':
        return [finding]
    return [_check_length(finding, entry, facts['times']) for entry in entries]


def _check_image(path: str) -> Finding:
    try:
        frame = next(iter(ImageReader(path)))
    except ClipError as error:
        return Finding(path, 'unreadable', error.reason)
    return Finding(path, facts={'frames': 1, 'width': frame.shape[1], 'height': frame.shape[0], 'notes': []})


def _check_video(path: str, facts: dict[str, Any]) -> Finding:
    try:
        reader = _sequential_reader(path, facts)
        facts.update(frames=len(reader), fps=round(reader.fps, 3))
        facts.update(zip(('height', 'width'), reader.read([0]).shape[1:3], strict=True))
    except ClipError as error:
        return Finding(path, 'unreadable', error.reason)
    times = facts['times'] = reader.read_times()
    gaps = np.diff(times)
    if len(gaps) and gaps.max() > UNEVEN * max(gaps.min(), 1e-9):
        facts['notes'].append('uneven frame times')
    problem = read_index(path).problem
    decord = _decord(path) if problem is None else None
    if decord is None:
        facts['notes'].append(f'slow, read from its first frame on: {problem or "decord cannot read it"}')
        frames: Iterable = ((None, frame) for frame in reader)
    else:
        facts['times'] = decord.times  # training reads segments with this decoder
        frames = zip_longest(decord, reader)
    return _compare(path, frames, decord, facts)


def _sequential_reader(path: str, facts: dict[str, Any]) -> OpenCVReader | PyAVReader:
    """Return the reader that others are compared with; note it if it is not OpenCV."""
    facts['notes'] = []
    try:
        return OpenCVReader(path)
    except ClipError:
        if not needs_pyav(path):
            raise
        reader = PyAVReader(path)
        facts['notes'].append(f'{BY_PYAV} (codec {read_header(path).codec})')
        return reader


def _compare(path: str, pairs: Iterable, decord: DecordReader | None, facts: dict[str, Any]) -> Finding:
    """Compare all frames of both decoders, then some frames that decord seeks."""
    small: list[np.ndarray] = []
    try:
        for number, (first, second) in enumerate(pairs):
            if second is None or (decord and first is None):
                reason = f'decord has {len(decord)} frames, OpenCV {facts["frames"]}'
                return Finding(path, 'damaged', reason)
            small.append(_shrink(second))
            if decord and (distance := _distance(_shrink(first), small[-1])) > TOLERANCE:
                return Finding(path, 'differs', f'frame {number} differs by {distance:.0f} gray levels')
        for start in np.linspace(0, max(0, len(small) - FRAMES_A_SEEK), NUM_SEEKS, dtype=int) if decord else ():
            indices = range(start, min(start + FRAMES_A_SEEK, len(small)))
            for index, frame in zip(indices, DecordReader(path).read(indices), strict=True):
                if (distance := _distance(_shrink(frame), small[index])) > TOLERANCE:
                    reason = f'frame {index}, after a seek by decord, differs by {distance:.0f} gray levels'
                    return Finding(path, 'differs', reason)
    except ClipError as error:
        return Finding(path, 'damaged', error.reason)
    return Finding(path)


def _check_length(finding: Finding, entry: Entry, times: np.ndarray) -> Finding:
    count, kind = len(times), 'unreadable'
    if entry.segment is not None:
        try:
            times = seconds_from_first(entry.name, times)
            kind = 'short'
            _, count = find_segment(entry.name, times, *entry.segment)
        except ClipError as error:
            return Finding(entry.name, kind, error.reason, finding.facts)
    if count < entry.span:
        return Finding(entry.name, 'short', f'{count} frames, a clip needs {entry.span}', finding.facts)
    return Finding(entry.name, finding.kind, finding.reason, finding.facts)


def _decord(path: str) -> DecordReader | None:
    try:
        reader = DecordReader(path)
        reader.read([0])  # decord fails on frames less than 32 pixels wide
    except (ClipError, ImportError):
        return None
    import decord

    decord.logging.set_level(decord.logging.ERROR)
    return reader


def _shrink(frame: np.ndarray) -> np.ndarray:
    """Average ``(H, W, 3)`` over squares of ``BLOCK`` pixels, as uint8."""
    height, width = frame.shape[:2]
    return cv2.resize(frame, (-(-width // BLOCK), -(-height // BLOCK)), interpolation=cv2.INTER_AREA)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    if first.shape != second.shape:
        return float('inf')
    return float(np.abs(first.astype(np.int16) - second).mean(axis=-1).max())


@contextmanager
def _captured_errors() -> Iterator[list[str]]:
    """Collect the first lines that decoders write to stdout and stderr. The list is filled on exit."""
    os.environ['OPENCV_FFMPEG_LOGLEVEL'] = _LOG_ERRORS  # only effective before the first video of this process
    lines: list[str] = []
    _flush()
    with tempfile.TemporaryFile() as file:
        kept = {number: os.dup(number) for number in (1, 2)}
        for number in kept:
            os.dup2(file.fileno(), number)
        try:
            yield lines
        finally:
            _flush()
            for number, original in kept.items():
                os.dup2(original, number)
                os.close(original)
            file.seek(0)
            text = file.read(1 << 16).decode(errors='replace')
            unique = dict.fromkeys(line.split('] ', 1)[-1].strip() for line in text.splitlines())
            lines += [line[:200] for line in unique if line and 'WARN:' not in line][:3]


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == 'posix':
        ctypes.CDLL(None).fflush(None)  # OpenCV's output is buffered in the C library

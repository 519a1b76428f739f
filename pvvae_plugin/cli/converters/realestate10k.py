"""Write the RealEstate10K lists train.csv and test.csv for the videos that you have.

pvvae convert-realestate10k --cameras CAMERAS --videos VIDEOS --out data/realestate10k
python tools/dataset_converters/realestate10k.py --cameras CAMERAS --videos VIDEOS --out data/realestate10k
python tools/dataset_converters/realestate10k.py --cameras ... --videos ... --out ... --decode

Nothing is downloaded. --cameras is the dataset's folder of camera files, with train/ and test/. --videos is the folder
of your videos, named by YouTube id (0abcDEF-_12.mp4, or any other extension that VideoDataset reads).

Exit code: 0 if both lists were written, else 1.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.datasets import ClipError, read_clip
from pvvae_plugin.datasets.readers.base import is_video
from pvvae_plugin.progress import ProgressBar

# Test comes first: segments in both splits are dropped from train.
SPLITS = ('test', 'train')
MIN_FRAMES = 17
HOME_PAGE = 'https://google.github.io/realestate10k/'
SHOWN = 10
# Maximum gap between a segment's last frame and its end: the video may have another frame rate than the cameras.
END_SLACK = 0.1  # seconds

VIDEO_ID = '[A-Za-z0-9_-]{11}'
URL = re.compile(rf'https?://(?:www\.)?youtube\.com/watch\?v=({VIDEO_ID})')
NUM_VALUES = 19  # timestamp; focal lengths, principal point, two zeros; 3 x 4 pose


class Sequence(NamedTuple):
    """Segment described by a camera file (``train/NAME.txt``); start and end in microseconds."""

    name: str
    video: str
    start: int
    end: int
    num_frames: int


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('--cameras', type=Path, required=True, help='folder with train/*.txt and test/*.txt')
    parser.add_argument('--videos', type=Path, required=True, help='folder of the videos, named by YouTube id')
    parser.add_argument('--out', type=Path, required=True, help='folder for train.csv and test.csv')
    parser.add_argument('--decode', action='store_true', help="also read each segment's first and last frame (slow)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Write the lists and return the exit code."""
    args = parse_args(argv)
    folders = {split: args.cameras / split for split in SPLITS}
    missing = [str(folder) for folder in (*folders.values(), args.videos) if not folder.is_dir()]
    if missing:
        print(f'not a folder: {", ".join(missing)}. The camera files unpack to train/ and test/: {HOME_PAGE}')
        return 1
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f'cannot create --out {args.out}: {error.strerror}; give a writable folder')
        return 1
    files = find_videos(args.videos)
    used: set[str] = set()
    seen: dict[tuple, str] = {}
    written = []
    for split, folder in folders.items():
        print(f'\n{split}')
        sequences = keep_usable(read_cameras(folder), seen)
        used |= {sequence.video for sequence in sequences}
        sequences = keep_present(sequences, files)
        if args.decode:
            sequences = keep_readable(sequences, args.videos, files)
        written.append(write_list(args.out / f'{split}.csv', sequences, files))
    print()
    report('videos without a sequence', [files[video] for video in sorted(files.keys() - used)])
    complete = all(written)
    print('both lists written' if complete else 'INCOMPLETE: at least one list was not written')
    return 0 if complete else 1


def find_videos(folder: Path) -> dict[str, str]:
    """Return the names of the video files by YouTube id."""
    files: dict[str, str] = {}
    repeated, others = [], []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith('.')):
        if re.fullmatch(VIDEO_ID, path.stem) and is_video(path.name) and path.is_file():
            if path.stem in files:
                repeated.append(f'{path.name}, {files[path.stem]} is used')
            else:
                files[path.stem] = path.name
        else:
            others.append(shown(path.name))
    print(f'videos named by YouTube id: {len(files)}')
    report('videos found more than once', repeated)
    report('other files, not named by a YouTube id or not videos', others)
    return files


def read_cameras(folder: Path) -> list[Sequence]:
    """Read the sequences of a split, sorted by file name; skip malformed files."""
    sequences, malformed = [], []
    # macOS writes metadata files with a leading dot and the same extension.
    paths = sorted(path for path in folder.glob('*.txt') if not path.name.startswith('.') and path.is_file())
    progress = ProgressBar(len(paths), file=sys.stderr)
    for path in paths:
        try:
            sequences.append(read_camera_file(path))
        except OSError as error:
            malformed.append(f'{shown(name_of(path))}: {error.strerror}')
        except ValueError as error:
            malformed.append(f'{shown(name_of(path))}: {error}')
        progress.update()
    print(file=sys.stderr)
    print(f'sequences: {len(paths)}')
    report('malformed camera files, skipped', malformed)
    return sequences


def read_camera_file(path: Path) -> Sequence:
    """Read the sequence of a camera file: the video's URL, then one line per frame.

    Raises:
        ValueError: If a line is malformed; the message gives its number.
        OSError: If the file cannot be read.
    """
    with path.open(encoding='utf-8-sig', errors='replace') as file:
        url = URL.fullmatch(file.readline().strip())
        if url is None:
            raise ValueError('line 1: expected https://www.youtube.com/watch?v= and an id of 11 characters')
        start, end, num_frames = 0, -1, 0
        for number, line in enumerate(file, 2):
            values = line.split()
            if not values:
                continue
            if len(values) != NUM_VALUES:
                raise ValueError(f'line {number}: {len(values)} values, {NUM_VALUES} are needed')
            if not re.fullmatch('[0-9]{1,15}', values[0]):
                raise ValueError(f'line {number}: the first value is not a time in microseconds')
            if not all(map(is_number, values[1:])):
                raise ValueError(f'line {number}: not every value is a finite number')
            time = int(values[0])
            if time <= end:
                raise ValueError(f'line {number}: its time {time} is not after the previous time {end}')
            start, end, num_frames = (start if num_frames else time), time, num_frames + 1
    return Sequence(name_of(path), url[1], start, end, num_frames)


def name_of(path: Path) -> str:
    """Return a camera file's name with its split."""
    return f'{path.parent.name}/{path.name}'


def is_number(text: str) -> bool:
    """Return whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def keep_usable(sequences: list[Sequence], seen: dict[tuple, str]) -> list[Sequence]:
    """Drop sequences that are too short or already in ``seen``; add the others to ``seen``."""
    kept, short, repeated = [], [], []
    for sequence in sequences:
        if sequence.num_frames < MIN_FRAMES:
            short.append(f'{shown(sequence.name)}: {sequence.num_frames}')
            continue
        first = seen.setdefault((sequence.video, sequence.start, sequence.end), sequence.name)
        if first == sequence.name:
            kept.append(sequence)
        else:
            repeated.append(f'{shown(sequence.name)} is {shown(first)}')
    report(f'shorter than {MIN_FRAMES} frames, skipped', short)
    report('duplicates, skipped', repeated)
    return kept


def keep_present(sequences: list[Sequence], files: dict[str, str]) -> list[Sequence]:
    """Keep the sequences whose video exists."""
    videos = {sequence.video for sequence in sequences}
    kept = [sequence for sequence in sequences if sequence.video in files]
    print(f'videos: {len(videos)}')
    report(
        f'videos missing, with {len(sequences) - len(kept)} sequences',
        sorted(video for video in videos if video not in files),
    )
    return kept


def keep_readable(sequences: list[Sequence], root: Path, files: dict[str, str]) -> list[Sequence]:
    """Keep the sequences whose first and last frame can be read."""
    kept, broken = [], []
    by_video = sorted(
        sequences, key=lambda sequence: sequence.video
    )  # reads a file's segments together while it is in the page cache
    progress = ProgressBar(len(by_video), file=sys.stderr)
    for sequence in by_video:
        try:
            check_segment(str(root / files[sequence.video]), sequence)
            kept.append(sequence)
        except ClipError as error:
            broken.append(f'{shown(sequence.name)} of {files[sequence.video]}: {error.reason}')
        progress.update()
    print(file=sys.stderr)
    report('unreadable, skipped', broken)
    return sorted(kept)


def check_segment(path: str, sequence: Sequence) -> None:
    """Read a segment's first and last frame, as training would.

    Raises:
        ClipError: If they cannot be read, the video ends too early, or the segment has too few frames.
    """
    start, end = sequence.start / 1e6, sequence.end / 1e6

    def first(num_frames: int) -> list[int]:
        if num_frames < MIN_FRAMES:
            raise ClipError(path, f'{num_frames} frames from {start} to {end} s, {MIN_FRAMES} are needed')
        return [0]

    read_clip(path, first, segment=(start, end))
    read_clip(path, lambda num_frames: [num_frames - 1], segment=(end - END_SLACK, end))


def write_list(path: Path, sequences: list[Sequence], files: dict[str, str]) -> bool:
    """Write a list for VideoDataset; return False if there was nothing to write."""
    if not sequences:
        old = ' (the existing file is from an earlier run)' if path.exists() else ''
        print(f'{path} not written{old}: no segment is left; add videos of this split to --videos')
        return False
    lines = [f'{files[item.video]},{seconds(item.start)},{seconds(item.end)}\n' for item in sequences]
    path.write_text('path,start,end\n' + ''.join(lines), encoding='utf-8')
    print(f'wrote {path}: {len(lines)} segments from {len({item.video for item in sequences})} videos')
    return True


def seconds(microseconds: int) -> str:
    """Format microseconds as exact seconds."""
    return f'{microseconds // 10**6}.{microseconds % 10**6:06d}'


def report(what: str, names: list[str]) -> None:
    """Print the number of names and the first few."""
    print(f'{what}: {len(names)}')
    for name in names[:SHOWN]:
        print(f'  {name}')
    if len(names) > SHOWN:
        print(f'  ... and {len(names) - SHOWN} more')


def shown(name: str) -> str:
    """Return a file name that is safe to print in a terminal."""
    return name if name.isprintable() else ascii(name)

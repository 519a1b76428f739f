"""Check an unpacked UCF101 against its official lists and write lists of the available videos.

pvvae convert-ucf101 --videos data/ucf101/videos --splits data/ucf101/ucfTrainTestlist
python tools/dataset_converters/ucf101.py --videos data/ucf101/videos --splits data/ucf101/ucfTrainTestlist
python tools/dataset_converters/ucf101.py --videos ... --splits ... --decode --out data/ucf101/verified

Exit code: 0 if the dataset is complete, 1 if files are missing or, with --decode, unreadable.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.datasets import ClipError, open_video

NUM_CLASSES = 101
NUM_VIDEOS = 13320
LISTS = [f'{kind}list{split:02d}.txt' for split in (1, 2, 3) for kind in ('train', 'test')]
HOME_PAGE = 'https://www.crcv.ucf.edu/data/UCF101.php'
SHOWN = 10


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('--videos', type=Path, required=True, help='folder with the 101 class folders of .avi files')
    parser.add_argument('--splits', type=Path, help='folder with classInd.txt, trainlist01.txt, ... (official lists)')
    parser.add_argument('--decode', action='store_true', help='also read the last frame of every video (minutes)')
    parser.add_argument('--out', type=Path, help='write lists of the videos that passed, and classInd.txt, here')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the check and return the exit code."""
    args = parse_args(argv)
    if not args.videos.is_dir():
        print(f'{args.videos} is not a folder. UCF101.rar unpacks to one folder per class; get it from {HOME_PAGE}')
        return 1
    videos = {path.relative_to(args.videos).as_posix() for path in args.videos.glob('*/*.avi')}
    classes = {name.split('/')[0] for name in videos}
    print(f'classes  {len(classes):6d} of {NUM_CLASSES}')
    print(f'videos   {len(videos):6d} of {NUM_VIDEOS}')
    complete = len(classes) == NUM_CLASSES and len(videos) == NUM_VIDEOS

    lists = read_lists(args.splits)
    if lists is None:
        complete = False
    else:
        listed = set().union(*(names_of(lines) for lines in lists.values()))
        complete &= report('listed but missing', listed - videos)
        report('not in any list', videos - listed)

    if args.decode:
        broken = decode_all(args.videos, sorted(videos))
        complete &= report('cannot be decoded', broken)
        videos -= broken
    if args.out and lists is not None:
        write_lists(args.out, args.splits, lists, videos)
    print('complete' if complete else 'INCOMPLETE')
    return 0 if complete else 1


def read_lists(folder: Path | None) -> dict[str, list[str]] | None:
    """Read the official lists by file name; if any is missing, print how to get them and return None."""
    if folder is None:
        missing = ['all of them (no --splits given)']
    else:
        missing = [name for name in ['classInd.txt', *LISTS] if not (folder / name).is_file()]
    if missing:
        print(
            f'official lists missing: {", ".join(missing)}. They are in UCF101TrainTestSplits-RecognitionTask.zip '
            f'from {HOME_PAGE}; unpack it and pass its folder as --splits'
        )
        return None
    return {name: (folder / name).read_text(encoding='utf-8-sig').split('\n') for name in LISTS}


def names_of(lines: list[str]) -> set[str]:
    """Return the paths of a list, without labels."""
    return {line.split()[0] for line in lines if line.strip()}


def report(what: str, names: set[str]) -> bool:
    """Print the number of names and the first few; return whether there are none."""
    print(f'{what}: {len(names)}')
    for name in sorted(names)[:SHOWN]:
        print(f'  {name}')
    if len(names) > SHOWN:
        print(f'  ... and {len(names) - SHOWN} more')
    return not names


def decode_all(root: Path, names: list[str]) -> set[str]:
    """Return the names of the videos whose first or last frame cannot be read."""
    broken = set()
    for number, name in enumerate(names, 1):
        try:
            reader = open_video(str(root / name))
            reader.read([0, len(reader) - 1])
        except ClipError as error:
            broken.add(name)
            print(f'\n  {error}')
        if number % 100 == 0 or number == len(names):
            print(f'\rdecoded {number} of {len(names)}, {len(broken)} broken', end='', flush=True)
    print()
    return broken


def write_lists(out: Path, splits: Path, lists: dict[str, list[str]], videos: set[str]) -> None:
    """Write the lists, restricted to ``videos``, and a copy of classInd.txt."""
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        kept = [line.strip() for line in lines if line.strip() and line.split()[0] in videos]
        (out / name).write_text(''.join(f'{line}\n' for line in kept), encoding='utf-8')
        print(f'wrote {out / name}: {len(kept)} of {len(names_of(lines))}')
    (out / 'classInd.txt').write_bytes((splits / 'classInd.txt').read_bytes())

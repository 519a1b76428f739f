"""Measure the clips per second of a config's training loader, compared with decord on the same clips.

    pvvae benchmark data
    python tools/benchmarks/data.py                                          # generated videos of moving shapes
    python tools/benchmarks/data.py --config configs/pvvae_folder64.py --data VIDEOS --workers 4 --json data.json

The loader is built by ``Runner.build_dataloader`` with persistent workers. A repeat is one pass over a fixed list of
batches, from the request of the first batch to the arrival of the last, after one warm-up pass. Nothing is prefetched
between repeats. For comparison, decord reads the same frames of the same files with one thread per process, with the
same number of processes and the same batches per process:

- *in a plain DataLoader*: OpenCV resizes and center-crops each frame to the loader's size, and torch sends the batches
  to the main process;
- *alone, to the loader's size*: the same, but the clips stay in the process that read them;
- *alone, decoding only*: the decoded frames are discarded.

The variants are interleaved, and each ratio compares adjacent measurements. The processes of *alone* keep freed memory,
because the C library returns it after each clip in some runs only, which distorts the comparison.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import cv2
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import read_config
from pvvae_plugin.datasets import DecordReader
from pvvae_plugin.datasets.synthetic.dataset import MOTIONS, draw_scene
from pvvae_plugin.datasets.synthetic.rendering import render
from pvvae_plugin.devices import processor
from pvvae_plugin.files import write_json

from .common import check_arguments, check_config, end_in_order, now, summary

SEED = 0
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
# Generated videos have the size and codec of UCF101 (MPEG-4 part 2).
WIDTH, HEIGHT, NUM_FRAMES, NUM_VIDEOS = 320, 240, 120, 4
FRAMES_AT_ONCE = 24

LOADER = 'training loader'
PLAIN = 'decord in a plain DataLoader'
ALONE = "decord alone, to the loader's size"
DECODING = 'decord alone, decoding only'


class Clip(NamedTuple):
    """Clip that decord reads."""

    path: str
    frames: list[int]
    size: tuple[int, int]  # height and width after the loader's transforms


def make_videos(folder: Path) -> None:
    """Write videos of moving shapes, named after their motions."""
    for number, motion in enumerate(list(MOTIONS)[:NUM_VIDEOS]):
        codec = cv2.VideoWriter_fourcc(*'XVID')
        writer = cv2.VideoWriter(str(folder / f'{motion}.avi'), codec, 25, (WIDTH, HEIGHT))
        if not writer.isOpened():
            raise RuntimeError(f'OpenCV {cv2.__version__} cannot write videos; give some with --data')
        for start in range(0, NUM_FRAMES, FRAMES_AT_ONCE):
            times = np.arange(start, min(start + FRAMES_AT_ONCE, NUM_FRAMES), dtype=float)
            for frame in render(*draw_scene(SEED, number, motion, times, 'hard'), size=WIDTH // 2):  # (W / 2, W / 2, 3)
                square = cv2.resize(frame, (WIDTH, WIDTH), interpolation=cv2.INTER_CUBIC)
                writer.write(np.ascontiguousarray(square[:HEIGHT, :, ::-1]))  # OpenCV takes BGR
        writer.release()


def loader_config(cfg: Config, folder: Path, workers: int) -> ConfigDict:
    """Return the config of the training loader, with other videos and persistent workers."""
    loader = cfg.train_dataloader
    loader.dataset.data_root = str(folder)
    for key in ('ann_file', 'class_file'):
        loader.dataset.pop(key, None)
    loader.num_workers = workers
    loader.persistent_workers = True
    loader.pin_memory = loader.get('pin_memory', False) and torch.cuda.is_available()
    return loader


def build_loader(config: ConfigDict, num_batches: int) -> DataLoader:
    """Build the loader of ``config``, limited to the first ``num_batches`` batches.

    Raises:
        ValueError: If the samplers have fewer batches.
    """
    endless = Runner.build_dataloader(config, seed=SEED)
    batches = list(islice(endless.batch_sampler, num_batches))
    if len(batches) < num_batches:
        raise ValueError(
            f'the loader has only {len(batches)} batches per pass, {num_batches} are needed; give more videos, or '
            'reduce --batches'
        )
    config = ConfigDict({**config, 'dataset': endless.dataset, 'sampler': None, 'batch_sampler': batches})
    for key in ('batch_size', 'drop_last', 'shuffle'):  # replaced by the list of batches
        config.pop(key, None)
    return Runner.build_dataloader(config, seed=SEED)


def find_clips(dataset: Dataset, batches: list[list[int]]) -> list[list[Clip]]:
    """Return the files, frames and sizes of batches, by reading each clip once.

    Raises:
        ValueError: If decord did not read a clip from exactly one file.
    """

    def find(index: int) -> Clip:
        seen: list[tuple[str, list[int]]] = []

        def read(reader: DecordReader, indices: Any) -> np.ndarray:
            frames = original(reader, indices)
            seen.append((reader.path, list(indices)))
            return frames

        with mock.patch.object(DecordReader, 'read', read):
            sample = dataset[index]
        metainfo = sample['data_samples'].metainfo
        if len(seen) != 1 or 'substituted_path' in metainfo:
            path = metainfo.get('substituted_path', metainfo['path'])
            raise ValueError(f'decord cannot read a clip of {path}; remove the file')
        return Clip(*seen[0], size=tuple(sample['inputs'].shape[2:]))

    original = DecordReader.read
    return [[find(index) for index in batch] for batch in batches]


def read_clip(clip: Clip, resize: bool) -> np.ndarray:
    """Read the frames of a clip, uint8 RGB ``(T, H, W, 3)``, with decord and OpenCV only."""
    import decord

    frames = decord.VideoReader(clip.path, num_threads=1).get_batch(clip.frames).asnumpy()
    if not resize:
        return frames
    height, width = frames.shape[1:3]
    size = clip.size
    if min(height, width) != min(size):
        scale = min(size) / min(height, width)
        shape = (round(width * scale), round(height * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        frames = np.stack([cv2.resize(frame, shape, interpolation=method) for frame in frames])
    top, left = (frames.shape[1] - size[0]) // 2, (frames.shape[2] - size[1]) // 2
    return np.ascontiguousarray(frames[:, top : top + size[0], left : left + size[1]])


class PlainDataset(Dataset):
    """Dataset of clips read with decord and OpenCV."""

    def __init__(self, clips: list[Clip]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'inputs': torch.from_numpy(read_clip(self.clips[index], resize=True))}


def plain_loader(batches: list[list[Clip]], like: DataLoader) -> DataLoader:
    """Build a plain DataLoader for the same batches, with the options of ``like``."""
    ends = list(accumulate(map(len, batches), initial=0))
    return DataLoader(
        PlainDataset([clip for batch in batches for clip in batch]),
        batch_sampler=[list(range(*bounds)) for bounds in pairwise(ends)],
        num_workers=like.num_workers,
        prefetch_factor=like.prefetch_factor,
        pin_memory=like.pin_memory,
        persistent_workers=True,
    )


def prepare_process(opencv_threads: int) -> None:
    """Set OpenCV's threads as in the loader's workers, and make glibc keep freed memory."""
    cv2.setNumThreads(opencv_threads)
    if platform.libc_ver()[0] == 'glibc':
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**30)


def read_clips(clips: list[Clip], resize: bool) -> int:
    """Read clips in one process and return their number."""
    return sum(len(read_clip(clip, resize)) > 0 for clip in clips)


def read_in_pool(pool: multiprocessing.pool.Pool, shares: list[list[Clip]], resize: bool) -> int:
    """Read one share of the clips per process and return their number."""
    return sum(pool.map(partial(read_clips, resize=resize), shares, chunksize=1))


def read_by_loader(loader: DataLoader) -> int:
    """Read all batches and return the number of clips."""
    return sum(len(batch['inputs']) for batch in loader)


def measure(calls: dict[str, Callable[[], int]], num_clips: int, repeats: int) -> dict[str, list[float]]:
    """Return the clips per second by call, interleaved, after one warm-up round."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-1, repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            found = call()
            seconds = time.perf_counter() - start
            if found != num_clips:
                raise RuntimeError(f'{name}: got {found} clips instead of {num_clips}')
            if turn >= 0:
                rates[name].append(num_clips / seconds)
    return rates


def compare(args: argparse.Namespace, cfg: Config, folder: Path) -> dict:
    """Run all measurements and return the results.

    Raises:
        ValueError: If no video is found, or one cannot be read.
    """
    set_multi_processing(**cfg.get('env_cfg', {}).get('mp_cfg', {}))
    loader = build_loader(loader_config(cfg, folder, args.workers), args.workers * args.batches)
    batches = find_clips(loader.dataset, loader.batch_sampler)
    clips = [clip for batch in batches for clip in batch]
    # The loader distributes batches round-robin over its workers.
    shares = [[clip for batch in batches[i :: args.workers] for clip in batch] for i in range(args.workers)]
    # Spawn, not fork: decord and OpenCV, already used here, may wait for threads that a fork does not have.
    with multiprocessing.get_context('spawn').Pool(args.workers, prepare_process, (cv2.getNumThreads(),)) as pool:
        calls = {
            LOADER: partial(read_by_loader, loader),
            PLAIN: partial(read_by_loader, plain_loader(batches, loader)),
            ALONE: partial(read_in_pool, pool, shares, resize=True),
            DECODING: partial(read_in_pool, pool, shares, resize=False),
        }
        rates = measure(calls, len(clips), args.repeats)
    ratios = {
        name: summary([ours / theirs for ours, theirs in zip(rates[LOADER], rates[name], strict=True)])
        for name in (PLAIN, ALONE, DECODING)
    }
    return {
        'clips': len(clips),
        'files': len({clip.path for clip in clips}),
        'frames': len(clips[0].frames),
        'sizes': sorted({' x '.join(map(str, clip.size)) for clip in clips}),
        'clips_per_second': {name: summary(values) for name, values in rates.items()},
        'ratios': ratios,
    }


def facts(args: argparse.Namespace) -> dict:
    """Return date, machine, versions and settings."""
    import decord

    return {
        'date': now(),
        'machine': f'{processor()}, {os.cpu_count()} core(s)',
        'versions': {'torch': torch.__version__, 'decord': decord.__version__, 'opencv': cv2.__version__},
        'command': 'python tools/benchmarks/data.py ' + ' '.join(args.argv),
        **{name: getattr(args, name) for name in ('config', 'workers', 'batches', 'repeats')},
        'videos': 'given' if args.data else f'{NUM_VIDEOS} of {NUM_FRAMES} x {HEIGHT} x {WIDTH}, made here',
    }


def table(report: dict) -> str:
    """Return the results as a Markdown table."""
    lines = [
        '| | clips per second, median (min to max) | per worker | loader / this |',
        '|---|---|---|---|',
    ]
    for name, rate in report['clips_per_second'].items():
        spread = '{median:.1f} ({min:.1f} to {max:.1f})'.format(**rate)
        reached = report['ratios'].get(name)
        reached = '{median:.2f} ({min:.2f} to {max:.2f})'.format(**reached) if reached else ''
        lines.append(f'| {name} | {spread} | {rate["median"] / report["workers"]:.1f} | {reached} |')
    return '\n'.join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('--config', default='pvvae_ucf101', help='path or name of a config (default: pvvae_ucf101)')
    parser.add_argument(
        '--data',
        type=Path,
        metavar='FOLDER',
        help="videos to use instead of the config's (default: generated videos)",
    )
    parser.add_argument('--workers', type=int, default=2, help='reading processes (default: 2)')
    parser.add_argument('--batches', type=int, default=8, help='batches per worker and repeat (default: 8)')
    parser.add_argument('--repeats', type=int, default=10, help='timed passes per variant (default: 10)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all results to this file')
    args = parser.parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    check_arguments(parser, args, ('workers', 'batches', 'repeats'))
    check_config(parser, args.config)
    if args.data and not args.data.is_dir():
        parser.error(f'--data {args.data} is not a folder')
    if importlib.util.find_spec('decord') is None:
        parser.error('this benchmark needs decord for comparison: pip install decord')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    end_in_order()
    report = facts(args)
    cfg = read_config(args.config)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    kind = str(cfg.get('train_dataloader', {}).get('dataset', {}).get('type')).rpartition('.')[2]
    if kind != 'VideoDataset':
        sys.exit(f'error: {args.config} does not train on video files: its dataset is of type {kind}')
    with ExitStack() as stack:
        folder = args.data
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            make_videos(folder)
        try:
            report.update(compare(args, cfg, folder))
        except (ValueError, RuntimeError) as error:
            sys.exit(f'error: {error}')
    if args.json:
        write_json(args.json, report)
    versions = ', '.join(f'{name} {version}' for name, version in report['versions'].items())
    print(f'{report["date"]}, {report["machine"]}, {versions}\n{report["command"]}')
    print(
        f'{args.config}: {report["frames"]} frames of {", ".join(report["sizes"])}; {report["clips"]} clips per repeat '
        f'from {report["files"]} files ({report["videos"]}), {args.workers} worker(s)\n\n{table(report)}'
    )

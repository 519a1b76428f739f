"""Find files that would make training skip a clip, hang, crash, or read wrong frames.

pvvae verify path/to/videos --clip-len 17
python tools/verify_dataset.py configs/pvvae_ucf101.py --split train --workers 8 --write-list data/ucf101/good.txt
python tools/verify_dataset.py path/to/videos --clip-len 17 --out report.json

Each file is decoded completely with decord and OpenCV, in a separate process. The process is killed and replaced if
the file takes longer than --timeout; crashes are reported as findings. The frames of both decoders are compared, and
frames that decord seeks are compared with frames read in order. Ctrl-C stops the check and writes the findings so far.
Files in the folder that training does not read, such as other extensions, are counted and named.
Exit codes: 0 if all files are read and good, 1 if not, 2 for wrong arguments, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mmengine.registry import init_default_scope

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.datasets import ClipDataset, SyntheticVideoDataset, VideoDataset
from pvvae_plugin.datasets.annotations import list_problem, write_annotations
from pvvae_plugin.datasets.checking.verification import KINDS, Finding, count_steps, verify
from pvvae_plugin.datasets.folders import LeftOut, NestedClipsError
from pvvae_plugin.datasets.frame_rates import rates_within
from pvvae_plugin.files import check_writable, write_json
from pvvae_plugin.progress import ProgressBar
from pvvae_plugin.registry import DATASETS

SPLITS = ('train', 'val', 'test')
SHOWN = 10  # files per kind


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('data', metavar='CONFIG_OR_FOLDER', help='config file or name, or a folder of videos or images')
    parser.add_argument('--split', nargs='+', choices=SPLITS, help='splits of the config (default: all)')
    parser.add_argument('--clip-len', type=int, default=1, help='frames per clip, for a folder (default: 1)')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='worker processes (default: one per core)')
    parser.add_argument('--timeout', type=float, default=120, help='maximum seconds per file (default: 120)')
    parser.add_argument('--out', type=Path, metavar='JSON', help='write the findings for every file to this file')
    parser.add_argument('--write-list', type=Path, metavar='FILE', help='write an ann_file of the good files')
    add_override_argument(parser)
    args = parser.parse_args(argv)
    for name in ('workers', 'timeout', 'clip_len'):
        if getattr(args, name) <= 0:
            parser.error(f'--{name.replace("_", "-")} must be positive, got {getattr(args, name)}')
    if os.path.isdir(args.data) and (args.split or args.cfg_options):
        parser.error(f'{args.data} is a folder; --split and --cfg-options need a config')
    return args


def build_datasets(args: argparse.Namespace) -> list[ClipDataset]:
    """Build the datasets to check; wrapped datasets are listed one by one.

    Raises:
        ValueError: If no dataset has clips, or ``--write-list`` would cover several datasets.
    """
    if os.path.isdir(args.data):
        datasets = [VideoDataset(args.data, clip_len=args.clip_len)]
    else:
        if os.sep in args.data and not args.data.endswith(('.py', '.json', '.yaml', '.yml')):
            raise FileNotFoundError(f'{args.data} is neither a folder nor a config (seen from {os.getcwd()})')
        cfg = read_config(args.data, args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
        loaders = {split: cfg.get(f'{split}_dataloader') for split in args.split or SPLITS}
        if missing := [split for split in args.split or () if not loaders[split]]:
            raise ValueError(f'{args.data} has no {missing[0]}_dataloader')
        configs = [loader.dataset for loader in loaders.values() if loader]
        unique = [config for number, config in enumerate(configs) if config not in configs[:number]]
        datasets = [part for config in unique for part in _parts(DATASETS.build(config))]
    if not datasets:
        raise ValueError(f'{args.data} has no dataset of clips')
    datasets = [dataset for dataset in datasets if not isinstance(dataset, SyntheticVideoDataset)]
    if not datasets:
        raise ValueError(f'{args.data} has no files to check: its clips are synthetic')
    if args.write_list:
        if len(datasets) > 1 or not isinstance(datasets[0], VideoDataset):
            raise ValueError('--write-list needs exactly one VideoDataset; select it with --split train, val or test')
        if problem := list_problem(args.write_list, _entries(datasets[0])):
            raise ValueError(f'--write-list {args.write_list}: {problem}')
    return datasets


def _parts(dataset: object) -> list[ClipDataset]:
    """Return the datasets of clips inside wrappers such as ConcatDataset and RepeatDataset."""
    if isinstance(dataset, ClipDataset):
        dataset.full_init()
        return [dataset]
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    return [part for entry in inner if entry is not None for part in _parts(entry)]


def _entries(dataset: ClipDataset) -> list[dict]:
    return [dataset.get_data_info(index) for index in range(len(dataset))]


def check(datasets: list[ClipDataset], args: argparse.Namespace) -> tuple[list[Finding], bool]:
    """Return the findings and whether the check was completed."""
    findings: list[Finding] = []
    progress = ProgressBar(count_steps(datasets), file=sys.stderr)
    complete = False
    try:
        for found in verify(datasets, args.workers, args.timeout):
            findings += found
            progress.update()
        complete = True
    except KeyboardInterrupt:
        print('\nstopped', file=sys.stderr)
    print(file=sys.stderr)
    return sorted(findings, key=lambda finding: finding.path), complete


def summarize(findings: list[Finding], left_out: Sequence[LeftOut]) -> dict[str, int]:
    """Print the counts per kind and the first bad files; return the counts."""
    counts = Counter(finding.kind for finding in findings)
    if left_out:
        counts['left out'] = sum(group.count for group in left_out)
    print(f'good: {counts["good"]} of {counts.total()}')
    for kind, meaning in KINDS.items():
        bad = [finding for finding in findings if finding.kind == kind]
        if bad:
            print(f'{kind}: {len(bad)} ({meaning})')
        for finding in bad[:SHOWN]:
            print(f'  {finding.path!r}: {finding.reason}')
        if len(bad) > SHOWN:
            print(f'  ... and {len(bad) - SHOWN} more')
    if left_out:
        print(f'left out: {counts["left out"]} (in the folder, but not read)')
    for group in left_out:
        print(f'  {group}')
    notes = Counter(note for finding in findings for note in finding.facts.get('notes', ()))
    for note, count in notes.most_common():
        print(f'note: {count} x {note}')
    if text := rates_within({finding.path: fps for finding in findings if (fps := finding.facts.get('fps'))}):
        print(f'note: {text}')
    return dict(counts)


def main(argv: list[str] | None = None) -> int:
    """Run the check and return the exit code."""
    args = parse_args(argv)
    try:
        datasets = build_datasets(args)
        if args.out:
            check_writable(args.out)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1 if isinstance(error, NestedClipsError) else 2
    start = time.time()
    findings, complete = check(datasets, args)
    folders = {d.data_root: d.left_out for d in datasets if isinstance(d, VideoDataset)}  # splits may share one
    left_out = [group for groups in folders.values() for group in groups]
    counts = summarize(findings, left_out)
    if args.out:
        report = {
            'data': args.data,
            'complete': complete,
            'seconds': round(time.time() - start, 1),
            'counts': counts,
            'left_out': [asdict(group) for group in left_out],
            'bad': [asdict(finding) for finding in findings if finding.kind != 'good'],
            'good': [asdict(finding) for finding in findings if finding.kind == 'good'],
        }
        write_json(args.out, report)
        print(f'wrote {args.out}')
    if not complete:
        print('the check is incomplete' + (f'; {args.write_list} was not written' if args.write_list else ''))
        return 130
    if args.write_list:
        good = {finding.path for finding in findings if finding.kind == 'good'}
        kept = [entry for entry in _entries(datasets[0]) if entry['path'] in good]
        if not kept:
            print(f'no good file; {args.write_list} was not written')
            return 1
        left = write_annotations(args.write_list, kept, datasets[0].data_root, bool(datasets[0].class_file))
        print(f'wrote {args.write_list}: {len(kept) - len(left)} of {len(datasets[0])}')
        for path in left:
            print(f'  skipped, its name cannot be written to a list: {path!r}')
    return int(sum(counts.values()) > counts.get('good', 0))

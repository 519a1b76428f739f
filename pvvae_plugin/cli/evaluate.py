"""Compare two sets of videos: FVD, KVD, Inception Score, or PSNR, SSIM and rFVD of reconstructions.

    pvvae evaluate REAL FAKE --out result.json
    python tools/evaluate_videos.py REAL FAKE                        # FVD and KVD, 17 frames, as in the paper
    python tools/evaluate_videos.py REAL FAKE --protocol stylegan-v --metrics fvd kvd is
    python tools/evaluate_videos.py REAL FAKE --metrics proxy        # nothing to download; not FVD
    python tools/evaluate_videos.py SOURCES RECONSTRUCTIONS --metrics rfvd psnr ssim lpips

REAL and FAKE are folders of videos (or of one folder per class), lists of paths, .csv lists of segments, or .npy
arrays, uint8 (N, T, H, W, 3). No config is needed. The protocol selects the clip of each real video; a fake video
contributes its first frames. Features of real videos are cached in --cache-dir. docs/evaluate.md explains every number
and lists the weight files. To use several processes: torchrun --nproc-per-node N ... --launcher pytorch.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.logging import MMLogger, print_log
from mmengine.registry import init_default_scope
from torch.utils.data import Dataset

from pvvae_plugin import __version__
from pvvae_plugin.cli.launching import end_processes, start_processes
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config.overrides import OverrideAction
from pvvae_plugin.evaluation import PROTOCOLS, resolve_protocol
from pvvae_plugin.evaluation.folders import PAIRED, PER_FRAME, UNPAIRED, build_metrics, evaluate_videos, videos_config
from pvvae_plugin.evaluation.frame_rates import frame_rates, rate_warning
from pvvae_plugin.evaluation.protocols import OF_REAL_CLIPS
from pvvae_plugin.evaluation.reference import CACHE_DIR
from pvvae_plugin.files import check_writable, write_json
from pvvae_plugin.registry import DATASETS

EXTRACTORS = {
    'i3d-torchscript': {'type': 'I3DTorchScript', 'weights': 'weights/i3d_torchscript.pt'},
    'i3d': {'type': 'I3D', 'weights': 'weights/i3d_pretrained_400.pt'},
    'videomae': {'type': 'VideoMAE', 'path': 'weights/videomae-base'},
}
OF_EXTRACTOR = [name for name, kind in (UNPAIRED | PAIRED).items() if kind in ('FVD', 'KVD')]
USED_BY = {'extractor': OF_EXTRACTOR, 'weights': OF_EXTRACTOR, 'sha256': OF_EXTRACTOR, 'lpips_net': ['lpips']}
FIRST_FRAMES = {'test_clip': 'first', 'frame_interval': 1}  # clips of fake videos and of their sources
CLASSIFIER = {'type': 'C3D', 'weights': 'weights/conv3d_deepnetA_ucf.npz', 'mean': 'weights/mean2.npz'}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('real', metavar='REAL', help='folder, list or .npy array of real videos, or of sources')
    parser.add_argument('fake', metavar='FAKE', help='the same for generated videos or reconstructions')
    parser.add_argument(
        '--metrics',
        nargs='+',
        default=['fvd', 'kvd'],
        metavar='NAME',
        help=f'any of {", ".join(UNPAIRED)}; or any of {", ".join([*PAIRED, *PER_FRAME])}, which compare videos with '
        'the same name (default: fvd kvd)',
    )
    parser.add_argument('--protocol', default='paper', metavar='NAME', help=f'{", ".join(PROTOCOLS)} (default: paper)')
    parser.add_argument(
        '--protocol-options',
        nargs='+',
        action=OverrideAction,
        default={},
        metavar='K=V',
        help='protocol settings to change, e.g. num_frames=9 frame_interval=2 ddof=1',
    )
    parser.add_argument(
        '--num-samples', type=int, metavar='N', help="maximum number of videos per set (default: the protocol's)"
    )
    parser.add_argument(
        '--extractor', choices=list(EXTRACTORS), help='feature extractor for FVD and KVD (default: i3d-torchscript)'
    )
    parser.add_argument(
        '--weights',
        metavar='PATH',
        help='weights of the extractor (default: the published file, in weights/ or in $PVVAE_WEIGHTS)',
    )
    parser.add_argument(
        '--sha256', help='expected SHA-256 of the weights; required for any TorchScript file except the known one'
    )
    parser.add_argument('--lpips-net', choices=['alex', 'vgg'], help='network of LPIPS (default: alex)')
    parser.add_argument(
        '--out', type=Path, metavar='FILE.json', help='write all numbers and their records to this file'
    )
    parser.add_argument(
        '--cache-dir', default=CACHE_DIR, help=f'cache for features of real videos (default: {CACHE_DIR})'
    )
    parser.add_argument('--batch-size', type=int, default=8, help='clips per batch (default: 8)')
    parser.add_argument('--workers', type=int, default=2, help='decoding processes (default: 2)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    args = parser.parse_args(argv)
    for name, least in (('num_samples', 2), ('batch_size', 1), ('workers', 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, got {value}')
    known = set(args.metrics) <= {*UNPAIRED, *PAIRED, *PER_FRAME}
    for name, users in USED_BY.items():
        if known and getattr(args, name) and not set(users) & set(args.metrics):
            parser.error(
                f'--{name.replace("_", "-")} is only for {", ".join(users)}, but --metrics is '
                f'{" ".join(args.metrics)}; remove it'
            )
    unused = [name for name in OF_REAL_CLIPS if name in args.protocol_options]
    if unused and {*PAIRED, *PER_FRAME} & set(args.metrics):
        parser.error(
            f'--protocol-options {unused[0]} has no effect on {" ".join(args.metrics)}, which compare the first frames '
            'of each video with those of its source; remove it'
        )
    if args.out and args.out.suffix != '.json':
        parser.error(f'--out must end in .json, got {args.out}')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    init_default_scope('pvvae_plugin')
    MMLogger.get_instance('evaluate_videos')
    start_processes(args.launcher)
    try:
        metrics, numbers, about = measure(args)
    except FileNotFoundError as error:
        if 'extractor.weights' not in str(error):
            raise
        raise FileNotFoundError(f'{error} Set the path with --weights; --metrics proxy needs no file.') from error
    if get_dist_info()[0] == 0:
        report(args, metrics, numbers, about)
    end_processes()


def measure(args: argparse.Namespace) -> tuple[list[Any], dict[str, float], dict[str, Any]]:
    """Return the metrics with their records, the numbers, and a description of both sets of videos."""
    changes = dict(args.protocol_options)
    if 'base' in changes:
        raise ValueError('set the base with --protocol, not with --protocol-options base=...')
    protocol = resolve_protocol({'base': args.protocol, **changes} if changes else args.protocol)
    # Skip unreadable videos, without a limit.
    clips = {'clip_len': protocol.num_frames, 'test_mode': True, 'max_substitutes': sys.maxsize, **FIRST_FRAMES}
    fake = videos_config(args.fake, **clips)
    fake_videos = DATASETS.build(fake)
    num_samples = min(args.num_samples or protocol.num_samples, len(fake_videos))
    if num_samples < 2:
        raise ValueError(f'{args.fake} has {num_samples} video; each set needs at least 2')
    if args.out:
        check_writable(args.out)
    extractor = dict(EXTRACTORS[args.extractor or 'i3d-torchscript'])
    if args.weights:
        extractor['path' if 'path' in extractor else 'weights'] = args.weights
    if args.sha256:
        extractor['sha256'] = args.sha256
    loading = {'batch_size': args.batch_size, 'num_workers': args.workers}
    reference = {
        'dataset': videos_config(args.real),
        'num_samples': num_samples,
        'cache_dir': args.cache_dir,
        **loading,
    }
    metrics, paired = build_metrics(args.metrics, protocol, extractor, CLASSIFIER, reference, args.lpips_net or 'alex')
    real = videos_config(args.real, **clips)
    about = describe_videos(args, fake_videos, DATASETS.build(real), None if paired else protocol.frame_interval)
    numbers, unreadable = evaluate_videos(metrics, fake, num_samples, sources=real if paired else None, **loading)
    for side, paths in unreadable.items():
        about['videos'][side]['unreadable'] = paths
    return metrics, numbers, about


def describe_videos(args: argparse.Namespace, fake: Dataset, real: Dataset, interval: int | None) -> dict[str, Any]:
    """Return numbers, frame rates and files left out of both sets, and warnings about them, which are also logged."""
    rates = {'real': frame_rates(real), 'fake': frame_rates(fake)}
    warnings = []
    if os.path.samefile(args.real, args.fake):
        warnings.append(f'{args.real} and {args.fake} are the same videos twice: distances show the floor at best')
    if different := rate_warning(rates['real'], rates['fake'], interval):
        warnings.append(different)
    for warning in warnings if get_dist_info()[0] == 0 else ():
        print_log(warning, 'current', logging.WARNING)
    videos = {
        side: {
            'num_videos': len(dataset),
            'fps': rates[side] or 'unknown',
            'left_out': [asdict(group) for group in getattr(dataset, 'left_out', ())],
        }
        for side, dataset in (('real', real), ('fake', fake))
    }
    return {'videos': videos, 'warnings': warnings}


def report(args: argparse.Namespace, metrics: list[Any], numbers: dict[str, float], about: dict[str, Any]) -> None:
    """Print a table and, with ``--out``, write a file."""
    records = {name: record for metric in metrics for name, record in getattr(metric, 'records', {}).items()}
    rows = [('', 'value', '95 % interval', 'unbiased', 'floor', 'clips', 'protocol', 'weights')]
    for name, record in records.items():
        low, high = record.get('interval_95', (math.nan, math.nan))
        floor = record['floor'] or {'value': math.nan, 'num_samples': 0}
        rows.append(
            (
                name.removeprefix('gen/').removeprefix('recon/'),
                _text(record['value']),
                f'{_text(low)} to {_text(high)}' if 'interval_95' in record else '-',
                _text(record.get('unbiased', math.nan)),
                f'{_text(floor["value"])} ({floor["num_samples"]})' if record['floor'] else '-',
                str(record['num_samples']),
                record['protocol']['name'],
                str((record['extractor']['weights'] or {}).get('sha256'))[:12],
            )
        )
    plain = {k: v for k, v in numbers.items() if isinstance(v, float) and not any(n in k for n in records)}
    rows += [(name.removeprefix('recon/'), _text(value), *[''] * 6) for name, value in plain.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for record in records.values():
        for warning in record['warnings']:
            print(f'{record["name"]}: {warning}')
    if args.out:
        content = {
            'metrics': numbers,
            'records': records,
            'real': args.real,
            'fake': args.fake,
            **about,
            'fake_clips': FIRST_FRAMES,
            'pvvae_plugin': __version__,
            'torch': torch.__version__,
        }
        write_json(args.out, content)
        print(f'written: {args.out}')


def _text(value: float) -> str:
    return '-' if math.isnan(value) else f'{value:.4g}'

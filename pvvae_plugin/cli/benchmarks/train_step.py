"""Measure time and memory of a training step: with and without dropping, and with gradient checkpointing.

    pvvae benchmark train-step
    python tools/benchmarks/train_step.py                                       # small widths, 8 x 17 x 32 x 32
    python tools/benchmarks/train_step.py --size paper --device cuda --dtype bfloat16 --side 128

A step is a forward and a backward pass of the VAE with ``PredictiveReconLoss``, without the optimizer. LPIPS and the
discriminator are excluded: their cost does not depend on dropping. ``--dtype bfloat16`` uses autocast. With r = 1, the
number of observed groups of each clip is drawn uniformly. There is one draw per repeat, the same for all rows, and the
median is over draws. *Up to the longest* encodes all clips of a batch to the length of the longest and masks the rest,
as a compiled network does. Rows are interleaved in one process.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.files import write_json
from pvvae_plugin.models.losses import PredictiveReconLoss
from pvvae_plugin.models.vae import PredictiveVAE
from pvvae_plugin.temporal import frames_to_groups, groups_to_frames

from .common import (
    SMALL_VAE,
    check_arguments,
    check_clip,
    kept_bytes,
    machine,
    measure,
    milliseconds,
    now,
    peak_bytes,
    summary,
    versions,
)

SIZES = {'small': SMALL_VAE, 'paper': {}}
NONE, DROP, LONGEST, SAVING = 'no dropping', 'r = 1', 'r = 1, up to the longest', 'no dropping, checkpointed'


def step(vae: PredictiveVAE, video: Tensor, counts: Tensor | None, autocast: bool) -> None:
    """Run a forward and a backward pass."""
    vae.zero_grad(set_to_none=True)
    with torch.autocast(video.device.type, torch.bfloat16) if autocast else nullcontext():
        output = vae(video, counts)
        losses = PredictiveReconLoss()(output, video)
    sum(value for name, value in losses.items() if name.startswith('loss')).backward()


def compare(args: argparse.Namespace) -> dict:
    """Run all measurements and return the results."""
    generator = torch.Generator().manual_seed(0)
    video = (torch.rand(args.batch, 3, args.frames, args.side, args.side, generator=generator) * 2 - 1).to(args.device)
    with torch.device(args.device):
        vae = PredictiveVAE(**SIZES[args.size]).train()
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    groups = frames_to_groups(args.frames, vae.temporal_ratio)
    draws = torch.randint(1, groups + 1, (args.repeats + 2, args.batch), generator=generator)
    run = partial(step, vae, video, autocast=args.dtype == 'bfloat16')

    def row(name: str, turns: itertools.cycle) -> None:
        vae.encodes_longest = name == LONGEST
        vae.encoder.gradient_checkpointing = vae.decoder.gradient_checkpointing = name == SAVING
        run(counts=next(turns) if 'r = 1' in name else None)

    # measure() calls each row repeats + 2 times, so all rows use the same draws.
    calls = {name: partial(row, name, itertools.cycle(draws)) for name in (NONE, DROP, LONGEST, SAVING)}
    print(f'{args.repeats} steps per row:')
    seconds = measure(calls, args.repeats, args.device)
    shares = {
        DROP: statistics.mean(groups_to_frames(k, vae.temporal_ratio) for k in draws[2:].flatten().tolist()),
        LONGEST: statistics.mean(groups_to_frames(k, vae.temporal_ratio) for k in draws[2:].amax(1).tolist()),
    }
    rows = {}
    for name, call in calls.items():
        size = peak_bytes(call, 'cuda') if args.device == 'cuda' else kept_bytes(call, vae)
        rows[name] = {
            'seconds': summary(seconds[name]),
            'of no dropping': statistics.median(seconds[name]) / statistics.median(seconds[NONE]),
            'frames encoded': shares.get(name, args.frames) / args.frames,
            'bytes': size,
        }
    return {'parameters': sum(p.numel() for p in vae.parameters()), 'rows': rows}


def table(report: dict) -> str:
    """Return the results as a Markdown table."""
    memory = 'peak' if report['device'] == 'cuda' else 'kept for backward, one draw'
    lines = [
        f'| | ms, median (min to max) | of no dropping | frames encoded | {memory}, MiB |',
        '|---|---|---|---|---|',
    ]
    for name, row in report['rows'].items():
        lines.append(
            f'| {name} | {milliseconds(row["seconds"])} | {row["of no dropping"]:.2f} '
            f'| {row["frames encoded"]:.0%} | {row["bytes"] / 2**20:.0f} |'
        )
    return '\n'.join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--size', choices=list(SIZES), default='small', help='widths (default: small)')
    parser.add_argument('--batch', type=int, default=8, help='clips (default: 8)')
    parser.add_argument('--frames', type=int, default=17, help='frames per clip, 1 + 4 k (default: 17)')
    parser.add_argument('--side', type=int, default=32, help='height and width in pixels (default: 32)')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16'], default='float32', help='default: float32')
    parser.add_argument('--repeats', type=int, default=9, help='timed steps per row (default: 9)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all results to this file')
    args = parser.parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    check_arguments(parser, args, ('batch', 'frames', 'side', 'repeats'))
    check_clip(parser, args)
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    report = {
        'date': now(),
        'machine': machine(args.device),
        'versions': versions('torch'),
        'command': ' '.join(['python tools/benchmarks/train_step.py', *args.argv]),
        **{name: getattr(args, name) for name in ('device', 'size', 'batch', 'frames', 'side', 'dtype')},
        **compare(args),
    }
    if args.json:
        write_json(args.json, report)
    print(f'\n{report["date"]}, {report["machine"]}, torch {report["versions"]["torch"]}\n{report["command"]}')
    print(
        f'{report["parameters"] / 1e6:.1f} M parameters; '
        f'{args.batch} x {args.frames} x {args.side} x {args.side}, {args.dtype}\n\n{table(report)}'
    )

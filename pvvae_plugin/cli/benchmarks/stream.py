"""Measure memory and speed of chunked encoding and decoding for videos of increasing length.

    pvvae benchmark stream
    python tools/benchmarks/stream.py                              # a small network on a CPU, 17 to 1,025 frames
    python tools/benchmarks/stream.py --config configs/pvvae_ucf101.py --size 256 --device cuda

Each length runs in a separate process. Frames are generated one at a time, encoded, decoded and discarded, so input and
output need no memory. Peak memory is the resident set of the process on a CPU, and the memory allocated by torch on a
GPU. The last column is the peak relative to the shortest video. On a CPU the C library is set to return freed memory at
once, at some cost in speed, so that its growing cache is not included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import read_config
from pvvae_plugin.files import write_json
from pvvae_plugin.models import VideoVAE
from pvvae_plugin.registry import MODELS

from .common import benchmark_command, check_arguments, check_config, end_in_order, machine, now, versions

# The layout of the paper's network, 32 wide at full resolution.
SMALL = {
    'type': 'PredictiveVAE',
    'latent_channels': 16,
    'encoder_widths': (32, 32, 64, 64, 64),
    'decoder_widths': (32, 32, 64, 64, 64),
    'encoder_blocks': 1,
    'decoder_blocks': 1,
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        '--config', help="config with the model.backbone to use (default: a small VAE with the paper's layout)"
    )
    parser.add_argument(
        '--lengths', type=int, nargs='+', default=[17, 65, 257, 1025], metavar='T', help='default: 17 65 257 1025'
    )
    parser.add_argument('--size', type=int, default=64, help='height and width in pixels (default: 64)')
    parser.add_argument('--groups-per-chunk', type=int, default=4, help='latent frames per chunk (default: 4)')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all results to this file')
    parser.add_argument('--child', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    check_arguments(parser, args, ('size', 'groups_per_chunk'))
    if args.config:
        check_config(parser, args.config)
    return args


def network(args: argparse.Namespace) -> VideoVAE:
    backbone = read_config(args.config).model.backbone.to_dict() if args.config else SMALL
    with torch.device('cpu' if args.child else 'meta'):
        return MODELS.build({**backbone, '_scope_': 'pvvae_plugin'})


def frames(length: int, size: int, device: str) -> Iterator[Tensor]:
    """Yield frames of noise, ``(1, 3, H, W)`` in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(length):
        yield (torch.rand(1, 3, size, size, generator=generator) * 2 - 1).to(device)


@torch.no_grad()
def run(args: argparse.Namespace) -> dict[str, float]:
    """Return the seconds and peak bytes for one length, in this process."""
    vae = network(args).to(args.device).eval()
    start = time.perf_counter()
    latents = (
        posterior.mode()
        for posterior in vae.encode_stream(frames(args.child, args.size, args.device), args.groups_per_chunk)
    )
    count = sum(video.shape[2] for video in vae.decode_stream(latents))
    if count != args.child:
        raise RuntimeError(f'decoded {count} frames instead of {args.child}')
    if args.device == 'cpu':
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    return {'seconds': time.perf_counter() - start, 'bytes': peak}


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.child:
        print(json.dumps(run(args)))
        return
    end_in_order()
    arguments = argv if argv is not None else sys.argv[1:]
    vae = network(args)
    if wrong := [length for length in args.lengths if length < 1 or (length - 1) % vae.temporal_ratio]:
        sys.exit(f'error: --lengths must be 1 + {vae.temporal_ratio} k, got {wrong[0]}')
    parameters = sum(p.numel() for p in vae.parameters()) / 1e6
    report = {
        'date': now(),
        'machine': machine(args.device),
        'versions': versions('torch'),
        'command': ' '.join(['python tools/benchmarks/stream.py', *arguments]),
    }
    print(f'{report["date"]}, {report["machine"]}, torch {report["versions"]["torch"]}\n{report["command"]}')
    print(
        f'{args.config or "a small network"}, {parameters:.1f} M parameters; T x {args.size} x {args.size}, '
        f'{args.groups_per_chunk} latent frames per chunk\n'
    )
    print('| frames | seconds, both ways | frames per second | peak MiB | over the shortest |\n|---|---|---|---|---|')
    first, rows = None, []
    for length in sorted(args.lengths):
        command = [*benchmark_command('stream'), *arguments, '--child', str(length)]
        environment = {**os.environ, 'MALLOC_ARENA_MAX': '1', 'MALLOC_MMAP_THRESHOLD_': '65536'}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f'error: {length} frames: {(done.stderr.strip().splitlines() or ["killed"])[-1]}')
        found = json.loads(done.stdout.strip().splitlines()[-1])
        first = first or found['bytes']
        rows.append({'frames': length, **found, 'over the shortest': found['bytes'] / first})
        rate, mebibytes = length / found['seconds'], found['bytes'] / 2**20
        print(f'| {length} | {found["seconds"]:.2f} | {rate:.1f} | {mebibytes:.0f} | {found["bytes"] / first:.3f} |')
    if args.json:
        write_json(args.json, {**report, 'rows': rows})

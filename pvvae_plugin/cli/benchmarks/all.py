"""Run all benchmarks of speed and memory on one device in under ten minutes and print one table.

    pvvae benchmark all --out DIR --tiny
    python tools/benchmarks/all.py --device cuda --out DIR         # the paper's size; needs diffusers and decord
    python tools/benchmarks/all.py --out DIR --tiny                # toy sizes on a CPU, to check that everything runs

Each benchmark runs in a separate process; its log and JSON file are saved in DIR. If one fails or times out, only its
rows are missing. Benchmarks that do not fit into the time limit are reported as not run. The column "wanted" has our
targets; the paper reports 1.19 for the speed and 0.85 for the memory of its VAE compared with Wan2.2's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from pvvae_plugin.cli.parser import CommandParser

from .common import benchmark_command, end_in_order, machine, now, versions


class Row(NamedTuple):
    """Number of a report, with its target."""

    name: str
    value: Callable[[dict], float]
    bound: str
    is_met: Callable[[float], bool]


class Run(NamedTuple):
    """Benchmark with its arguments, for a GPU and for ``--tiny``."""

    name: str
    benchmark: str
    arguments: str
    tiny: str
    rows: list[Row]


def at_least(name: str, bound: float, *path: str) -> Row:
    return Row(name, lambda report: _at(report, path), f'>= {bound:g}', lambda value: value >= bound)


def at_most(name: str, bound: float, *path: str) -> Row:
    return Row(name, lambda report: _at(report, path), f'<= {bound:g}', lambda value: value <= bound)


def _at(report: dict, path: Iterable[str]) -> float:
    for key in path:
        report = report[int(key) if isinstance(report, list) else key]
    return report


BEST = '--size paper --device cuda --dtype bfloat16'
TINY_VAE = '--batch 1 --frames 5 --side 32 --repeats 1'
RUNS = [
    Run(
        'vae',
        'vae',
        f'{BEST} --repeats 7',
        TINY_VAE,
        [
            at_least("encode + decode: AutoencoderKLWan's time over ours", 2, 'ratios', 'both', 'per clip'),
            at_most('peak memory, weights included, over that of AutoencoderKLWan', 0.6, 'ratios', 'both', 'memory'),
        ],
    ),
    Run(
        'train_step',
        'train-step',
        f'{BEST} --side 128 --repeats 9',
        '--batch 2 --frames 5 --repeats 1',
        [at_most('training step with r = 1 over one without dropping', 0.9, 'rows', 'r = 1', 'of no dropping')],
    ),
    Run(
        'stream',
        'stream',
        '--config pvvae_ucf101 --size 256 --device cuda --lengths 17 1025',
        '--lengths 5 9 --size 32',
        [at_most('peak memory of the longest stream over the shortest', 1.05, 'rows', '-1', 'over the shortest')],
    ),
    Run(
        'vae_compiled',
        'vae',
        f'{BEST} --repeats 7 --compile',
        f'{TINY_VAE} --compile',
        [at_least("the same, ours compiled: AutoencoderKLWan's time over ours", 2, 'ratios', 'both', 'per clip')],
    ),
    Run(
        'dit',
        'dit',
        '--device cuda --size XL --dtype bfloat16 --repeats 10',
        '--repeats 1',
        [at_least("training step: Latte's time over LatentDiT's", 1, 'ratios', 'training step', 'per step')],
    ),
    Run(
        'data',
        'data',
        '--workers 2 --repeats 8',
        '--config pvvae_folder64 --batches 1 --repeats 1',
        [
            at_least(
                'loader over decord in as many processes',
                0.85,
                'ratios',
                "decord alone, to the loader's size",
                'median',
            )
        ],
    ),
]


def execute(run: Run, arguments: str, out: Path, seconds: float) -> str | None:
    """Run a benchmark; return the reason if it wrote no report, else None."""
    report, log = out / f'{run.name}.json', out / f'{run.name}.log'
    report.unlink(missing_ok=True)
    command = [*benchmark_command(run.benchmark), *arguments.split(), '--json', str(report)]
    with log.open('w') as file:
        done = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            done.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            return f'stopped after {seconds:.0f} s'
        finally:
            if done.poll() is None:  # also after an interruption
                os.killpg(done.pid, signal.SIGKILL)  # including its child processes
                done.wait()
    if done.returncode:
        lines = log.read_text().strip().splitlines() or ['no output']
        return f'failed: {lines[-1]}'
    return None


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--tiny', action='store_true', help='toy sizes on a CPU; the numbers are meaningless')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder for logs and JSON files; created if missing'
    )
    parser.add_argument('--seconds', type=float, default=570, help='total time limit in seconds (default: 570)')
    args = parser.parse_args(argv)
    if (args.device == 'cpu') != args.tiny:
        parser.error('use either --device cuda, or --tiny on a CPU')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no GPU')
    if not args.seconds > 0:
        parser.error(f'--seconds must be positive, got {args.seconds:g}')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    end_in_order()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f'error: cannot create --out {args.out}: {error.strerror}')
    start, lines, failed = time.monotonic(), [], False
    for run in RUNS:
        left = args.seconds - (time.monotonic() - start)
        print(f'{run.name}: {left:.0f} s left', flush=True)
        arguments = run.tiny if args.tiny else run.arguments
        problem = 'not run: no time left' if left <= 0 else execute(run, arguments, args.out, left)
        failed = failed or problem is not None
        report = None if problem else json.loads((args.out / f'{run.name}.json').read_text())
        for row in run.rows:
            if report is None:
                lines.append(f'| {row.name} | | {row.bound} | {problem} |')
            else:
                value = row.value(report)
                met = 'toy size' if args.tiny else 'yes' if row.is_met(value) else 'no'
                lines.append(f'| {row.name} | {value:.3f} | {row.bound} | {met} |')
    print(f'\n{now()}, {machine(args.device)}, torch {versions("torch")["torch"]}{", toy sizes" if args.tiny else ""}')
    print('\n| what | measured | wanted | met |\n|---|---|---|---|\n' + '\n'.join(lines))
    sys.exit(int(failed))

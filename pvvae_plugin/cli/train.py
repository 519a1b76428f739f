"""Train a model from a config.

pvvae train pvvae_demo
python tools/train.py configs/pvvae_demo.py
bash tools/dist_train.sh configs/pvvae_ucf101.py 8
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import FlexibleRunner, Runner

from pvvae_plugin.cli.launching import add_launch_arguments, end_processes, find_missing, load_config
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.engine import build_runner
from pvvae_plugin.engine.hooks.checkpoint_hook import take_work_dir
from pvvae_plugin.engine.stop_request import EXIT_CODE
from pvvae_plugin.models.checkpoints import check_checkpoint, last_checkpoint, resolve_checkpoint


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    add_launch_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='resume from a checkpoint; without a path, from the latest in the work directory, if any',
    )
    parser.add_argument('--amp', action='store_true', help='run the forward pass in bfloat16')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--seed', type=int, help="seed of every random draw (default: the config's)")
    parser.add_argument('--deterministic', action='store_true', help='use deterministic algorithms (slower)')
    return parser.parse_args(argv)


def configure(args: argparse.Namespace) -> Config:
    """Return the config with the command line applied."""
    cfg = load_config(args)
    take_work_dir(cfg.work_dir)  # before choosing a checkpoint, which another run there might delete
    cfg.setdefault('randomness', {'seed': 0})
    if args.seed is not None:
        cfg.randomness.seed = args.seed
    if args.deterministic:
        cfg.randomness.deterministic = True
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # required by cuBLAS for determinism
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(f'--auto-scale-lr needs auto_scale_lr.base_batch_size in {args.config}')
        cfg.auto_scale_lr.enable = True
    if args.resume is None:
        cfg.resume = cfg.get('resume', False)
    elif args.resume == 'auto':
        # The first launch of a job may use --resume too: it must still load the weights of load_from.
        last = last_checkpoint(cfg.work_dir)
        if last is None:
            print_log(f'--resume: no checkpoint in {cfg.work_dir}; starting from iteration 0', logger='current')
        cfg.resume, cfg.load_from = last is not None, last or cfg.get('load_from')
    else:
        cfg.resume, cfg.load_from = True, args.resume
    if not cfg.resume and (earlier := sorted(Path(cfg.work_dir).glob('iter_*.pth'))):
        print_log(
            f'{cfg.work_dir} has checkpoints of an earlier run, e.g. {earlier[-1].name}; this run starts from '
            'iteration 0 and adds its own. Use --resume to continue the earlier run, or another --work-dir to keep '
            'them separate',
            logger='current',
            level=logging.WARNING,
        )
    check_schedule(cfg)
    missing = find_missing(cfg, 'train', 'val')
    if cfg.get('load_from'):
        setting = 'load_from' if args.resume is None else None
        cfg.load_from = missing.collect(resolve_checkpoint, cfg.load_from, setting)
    missing.report()
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from, _optimizer_names(cfg) if cfg.resume else None)
    return cfg


def _optimizer_names(cfg: Config) -> list[str]:
    optim = cfg.optim_wrapper
    return [] if 'optimizer' in optim else [name for name, value in optim.items() if isinstance(value, dict)]


def check_schedule(cfg: Config) -> None:
    """Raise if the run ends before a scheduler begins, or if a warm-up has only one step.

    MMEngine's message names neither setting. After a one-step warm-up, the learning rate would stay at its start value.
    """
    if 'train_cfg' not in cfg or cfg.train_cfg.get('max_iters', 0) < 1 or cfg.train_cfg.get('val_interval', 1) < 1:
        raise ValueError(
            'train_cfg needs max_iters and val_interval of at least 1, e.g. train_cfg=dict(type="ClipTrainLoop", '
            f'max_iters=1000, val_interval=100); got {cfg.get("train_cfg")}'
        )
    max_iters = cfg.train_cfg.max_iters
    for name, scheduler in _schedulers(cfg):
        if scheduler.get('begin', 0) >= max_iters:
            raise ValueError(
                f'{name}.begin={scheduler.begin} is past the end of the run, '
                f'train_cfg.max_iters={max_iters}. For a short run, shorten the warm-up as well: --cfg-options '
                f'{"" if max_iters > 2 else "train_cfg.max_iters=3 "}param_scheduler.0.end={max(2, max_iters // 2)} '
                f'param_scheduler.1.begin={max(2, max_iters // 2)}'
            )
        if scheduler.get('type') == 'LinearLR' and scheduler.get('end', math.inf) - scheduler.get('begin', 0) < 2:
            raise ValueError(
                f'{name} warms up from {scheduler.get("begin", 0)} to {scheduler.end}; a warm-up needs '
                'at least two steps, or the learning rate never rises'
            )


def _schedulers(cfg: Config) -> Iterator[tuple[str, dict]]:
    """Iterate over all schedulers with their keys; a dict holds those of each optimizer."""
    schedulers = cfg.get('param_scheduler') or []
    if not isinstance(schedulers, dict) or 'type' in schedulers:
        schedulers = {None: schedulers}
    for part, some in schedulers.items():
        prefix = 'param_scheduler' if part is None else f'param_scheduler.{part}'
        if isinstance(some, dict):
            yield prefix, some
        else:
            yield from ((f'{prefix}.{i}', scheduler) for i, scheduler in enumerate(some))


def enable_amp(cfg: Config) -> None:
    """Set bfloat16 on every optimizer wrapper of the config."""
    optim = cfg.optim_wrapper
    wrappers = [optim] if 'optimizer' in optim else [value for value in optim.values() if isinstance(value, dict)]
    for wrapper in wrappers:
        if wrapper.get('type') != 'AutocastOptimWrapper':
            raise ValueError(f"--amp needs type='AutocastOptimWrapper' in optim_wrapper, got {wrapper.get('type')!r}")
        wrapper.dtype = 'bfloat16'


def summary(runner: Runner | FlexibleRunner, config: str) -> str:
    """Return the results of a run and the command to run next."""
    work_dir = runner.work_dir
    pictures = Path(work_dir) / 'vis' / 'latest.png'
    is_generator = 'head' in runner.cfg.model
    # Overrides that the command needs, too. Sampling also reads the clip length and the class names.
    settings = ('model.', 'val_', 'test_', *(['train_dataloader.dataset.'] if is_generator else []))
    overrides = runner.cfg.get('command_line_overrides') or {}
    options = [shlex.quote(f'{key}={value}') for key, value in overrides.items() if key.startswith(settings)]
    command = ['pvvae', 'sample' if is_generator else 'test', shlex.quote(config), shlex.quote(work_dir)]
    lines = {
        'checkpoint': last_checkpoint(work_dir),
        'pictures': pictures if pictures.is_file() else None,
        'next': ' '.join([*command, *(['--cfg-options', *options] if options else [])]),
    }
    rows = [f'\n  {name:<10}  {value}' for name, value in lines.items() if value]
    return f'trained {runner.iter} iterations{"".join(rows)}'


def main(argv: list[str] | None = None) -> None:
    # Before the first step there is nothing to save; this exit code asks the scheduler to start the job again.
    for name in ('SIGTERM', 'SIGUSR1'):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(EXIT_CODE))
    args = parse_args(argv)
    runner = build_runner(configure(args))
    runner.train()
    runner.logger.info(summary(runner, args.config))
    end_processes()

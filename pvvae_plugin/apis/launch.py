"""What scripts share: common arguments, the config these lead to, and how several processes find one another."""

from __future__ import annotations

import argparse
import os
import os.path as osp
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.dist import init_dist

from pvvae_plugin.engine import init_cpu_process_group
from pvvae_plugin.models.pretrained import last_checkpoint

from .configs import read_config
from .overrides import add_override_argument, check_numbers


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add OpenMMLab's usual arguments: config, work directory, overrides and launcher."""
    parser.add_argument('config', help='config file, or the name of one of ours')
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: work_dirs/CONFIG_NAME)')
    add_override_argument(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='how processes were started'
    )
    # Older launchers pass it; torchrun sets the variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """The config file with overrides, launcher and work directory applied, and a CPU process group where needed.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If an override would change nothing, or a number of the config is none.
    """
    cfg = read_config(args.config, args.cfg_options)
    check_numbers(cfg)
    if args.cfg_options:
        cfg.command_line_overrides = {name: str(value) for name, value in args.cfg_options.items()}
    cfg.launcher = args.launcher
    default_dir = osp.join('work_dirs', osp.splitext(osp.basename(cfg.filename))[0])
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_dir
    if cfg.get('resume') and not cfg.get('load_from'):
        # MMEngine would take the path in the note of the last checkpoint, wherever that leads.
        cfg.load_from = last_checkpoint(cfg.work_dir)
        cfg.resume = cfg.load_from is not None
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.launcher == 'pytorch':
        init_cpu_process_group()
    return cfg


def start_processes(launcher: str) -> None:
    """Join the other processes of a script that shares out work, without a runner, and choose this one's GPU.

    Gloo on GPUs, too: such processes only wait for one another, and longer than NCCL would let them.

    Args:
        launcher: ``'none'``, ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``.

    Raises:
        ValueError: If the launcher did not start this process, or needs GPUs where there are none.
    """
    days = 30
    if launcher == 'pytorch':
        if 'RANK' not in os.environ:
            raise ValueError('--launcher pytorch is for processes that torchrun started: use it, or --launcher none')
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo', timeout=timedelta(days=days))
    elif launcher != 'none':
        if not torch.cuda.is_available():
            raise ValueError(f"--launcher {launcher} is MMEngine's, which asks for GPUs: use torchrun on CPUs")
        init_dist(launcher, backend='gloo', timeout=days * 86400)


def end_processes() -> None:
    """Leave the other processes of :func:`start_processes`, all at once: one that ends alone may abort the others."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

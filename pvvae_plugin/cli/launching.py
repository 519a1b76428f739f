"""What scripts share: common arguments, the config these lead to, and how several processes find one another."""

from __future__ import annotations

import argparse
import copy
import os
import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import init_dist

from pvvae_plugin.config.config_file import read_config
from pvvae_plugin.config.overrides import add_override_argument, check_numbers, settle_workers
from pvvae_plugin.engine import init_cpu_process_group
from pvvae_plugin.models.checkpoints import last_checkpoint
from pvvae_plugin.registry import METRICS

# What the process that starts others sets for them, by launcher.
STARTERS = {'none': 'nobody', 'pytorch': 'torchrun', 'slurm': 'srun', 'mpi': 'mpirun'}
STARTED_WITH = {
    'none': (),
    'pytorch': ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


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
    settle_workers(cfg)
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
    _check_work_dir(Path(cfg.work_dir))
    _check_launcher(args.launcher)
    if args.launcher == 'pytorch':
        _check_gpus()
        init_cpu_process_group()
    return cfg


@contextmanager
def missing_together(evaluator: Mapping | Sequence[Mapping]) -> Iterator[None]:
    """Where a metric lacks a package or weights, say at once what all of them lack, and not one after another.

    Args:
        evaluator: ``test_evaluator`` of the config.

    Raises:
        FileNotFoundError, ImportError: As the first metric does.
    """
    try:
        yield
    except (FileNotFoundError, ImportError) as error:
        lacking = [str(error)]
        for metric in [evaluator] if isinstance(evaluator, Mapping) else evaluator:
            try:
                METRICS.build(copy.deepcopy(metric))
            except (FileNotFoundError, ImportError) as another:
                lacking.append(str(another))
            except Exception:  # noqa: S112  (whatever else is wrong with a metric shows when these are there)
                continue
        if len(set(lacking)) == 1:
            raise
        raise type(error)('\n\n'.join(dict.fromkeys(lacking))) from error


def _check_work_dir(folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = 'is a file' if not there.is_dir() else 'cannot be written to'
        raise ValueError(f'the work directory {folder} cannot be used, {there} {why}: choose another by --work-dir')


def _check_launcher(launcher: str) -> None:
    """Refuse a launcher that did not start this process, which MMEngine would find out by a KeyError."""
    missing = [name for name in STARTED_WITH[launcher] if name not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher {launcher} is for processes that {STARTERS[launcher]} started, which sets '
            f'{", ".join(missing)}: start them so, or use --launcher none'
        )


def _check_gpus() -> None:
    """Refuse a process without a GPU of its own, beside others that have one."""
    local, gpus = int(os.environ.get('LOCAL_RANK', 0)), torch.cuda.device_count()
    if torch.cuda.is_available() and local >= gpus:
        raise ValueError(f'process {local} (from 0) of this machine has no GPU, there are {gpus}: start {gpus} here')


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
        _check_launcher(launcher)
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

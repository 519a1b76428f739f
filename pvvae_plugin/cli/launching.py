"""Shared helpers of the commands: common arguments, config loading, and process groups."""

from __future__ import annotations

import argparse
import copy
import os
import os.path as osp
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.registry import DefaultScope
from torch import nn

from pvvae_plugin.config.clip_facts import datasets_of
from pvvae_plugin.config.config_file import read_config
from pvvae_plugin.config.overrides import (
    add_override_argument,
    check_numbers,
    check_settings_are_read,
    settle_workers,
)
from pvvae_plugin.engine import init_cpu_process_group
from pvvae_plugin.missing import Missing
from pvvae_plugin.models.checkpoints import last_checkpoint, resolve_checkpoint
from pvvae_plugin.registry import DATASETS, METRICS, MODELS

# Environment variables that each launcher sets.
STARTERS = {'none': 'nobody', 'pytorch': 'torchrun', 'slurm': 'srun', 'mpi': 'mpirun'}
STARTED_WITH = {
    'none': (),
    'pytorch': ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
}


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the usual OpenMMLab arguments: config, work directory, overrides and launcher."""
    parser.add_argument('config', help='config file, or name of a config of this package')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/CONFIG_NAME)')
    add_override_argument(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='launcher that started the processes',
    )
    # Older launchers pass this option; torchrun sets LOCAL_RANK instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Load the config, apply overrides, launcher and work directory, and set up a CPU process group if needed.

    Raises:
        FileNotFoundError: If the config does not exist.
        ValueError: If a setting would have no effect, or a value that must be a number is not one.
    """
    cfg = read_config(args.config, args.cfg_options)
    check_numbers(cfg)
    check_settings_are_read(cfg)
    settle_workers(cfg)
    if args.cfg_options:
        cfg.command_line_overrides = {name: str(value) for name, value in args.cfg_options.items()}
    cfg.launcher = args.launcher
    default_dir = osp.join('work_dirs', osp.splitext(osp.basename(cfg.filename))[0])
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_dir
    if cfg.get('resume') and not cfg.get('load_from'):
        # MMEngine would follow the path in last_checkpoint without checking it.
        cfg.load_from = last_checkpoint(cfg.work_dir)
        cfg.resume = cfg.load_from is not None
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    _check_work_dir(Path(cfg.work_dir))
    _check_launcher(args.launcher)
    if args.launcher == 'pytorch':
        _check_gpus()
        init_cpu_process_group(((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout'))
    return cfg


def find_missing(cfg: Config, *splits: str) -> Missing:
    """Find missing packages, weights and data of a run, before anything large is built.

    Parts that may lack something are built to see what they need, and dropped: the VAE on the meta device, where it
    loads no weights, and datasets only if a path does not exist, because listing a large dataset takes time. Other
    errors are left to the run itself.

    Args:
        cfg: The config.
        splits: Splits whose data and metrics the run uses: ``'train'``, ``'val'``, ``'test'``.
    """
    missing, model = Missing(), cfg.get('model') or {}
    backbone, loss = model.get('backbone') or {}, model.get('loss')
    evaluators = [cfg.get(f'{split}_evaluator') or [] for split in splits]
    metrics = [metric for e in evaluators for metric in ([e] if isinstance(e, Mapping) else e)]
    real = [data for m in metrics if (data := (m.get('reference') or {}).get('dataset'))]
    parts = [
        *([(_build_on_meta, backbone)] if 'pretrained' in backbone else []),
        *([(MODELS.build, loss)] if loss else []),
        *((METRICS.build, metric) for metric in metrics),
        *((DATASETS.build, dataset) for dataset in (*datasets_of(cfg, splits), *real) if _lacks_path(dataset)),
    ]
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'pvvae_plugin')):
        for build, part in parts:
            with suppress(Exception):
                missing.collect(build, copy.deepcopy(part))
    if model.get('backbone_checkpoint'):
        missing.collect(resolve_checkpoint, model.backbone_checkpoint, 'model.backbone_checkpoint')
    return missing


def _build_on_meta(config: Mapping) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(config)


def _lacks_path(dataset: Mapping) -> bool:
    root = dataset.get('data_root') or ''
    files = [file for key in ('ann_file', 'class_file') if (file := dataset.get(key))]
    return bool(root and not osp.exists(root)) or not all(
        osp.isfile(file) or osp.isfile(osp.join(root, file)) for file in files
    )


def _check_work_dir(folder: Path) -> None:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = 'is a file' if not there.is_dir() else 'cannot be written to'
        raise ValueError(f'the work directory {folder} cannot be used: {there} {why}; choose another with --work-dir')


def _check_launcher(launcher: str) -> None:
    """Raise if ``launcher`` did not start this process; MMEngine would fail with a KeyError."""
    missing = [name for name in STARTED_WITH[launcher] if name not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher {launcher} needs processes started by {STARTERS[launcher]}, which sets '
            f'{", ".join(missing)}; start them with {STARTERS[launcher]}, or use --launcher none'
        )


def _check_gpus() -> None:
    """Raise if this machine runs more processes than it has GPUs."""
    local, gpus = int(os.environ.get('LOCAL_RANK', 0)), torch.cuda.device_count()
    if torch.cuda.is_available() and local >= gpus:
        raise ValueError(f'process {local} of this machine has no GPU (GPUs: {gpus}); start {gpus} processes here')


def start_processes(launcher: str) -> None:
    """Join the process group of a command that runs without a runner, and select the GPU of this process.

    The backend is Gloo, even on GPUs: the processes only wait for each other, and for longer than NCCL allows.

    Args:
        launcher: ``'none'``, ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``.

    Raises:
        ValueError: If the launcher did not start this process, or it needs GPUs and none is available.
    """
    days = 30
    if launcher != 'none':
        _check_launcher(launcher)
    if launcher == 'pytorch':
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo', timeout=timedelta(days=days))
    elif launcher != 'none':
        if not torch.cuda.is_available():
            raise ValueError(f'--launcher {launcher} needs GPUs and none is available; use torchrun on CPUs')
        init_dist(launcher, backend='gloo', timeout=days * 86400)


def end_processes() -> None:
    """Leave the process group of :func:`start_processes`, together: one early exit may abort the other processes."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()

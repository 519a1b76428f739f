"""Evaluate a checkpoint with the test set and metrics of a config.

python tools/test.py configs/pvvae_demo.py work_dirs/pvvae_demo --out metrics.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import os.path as osp
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from pvvae_plugin import __version__
from pvvae_plugin.engine import init_cpu_process_group, resolve_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, or the work directory of a run (its last checkpoint)')
    parser.add_argument('--work-dir', help='where logs go (default: work_dirs/CONFIG_NAME)')
    parser.add_argument('--out', metavar='JSON', help='write the metrics and what they were measured on to this file')
    parser.add_argument('--show-dir', metavar='DIR', help='write strips and videos of the first clips here')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='K=V', help='override entries of the config'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def configure(args: argparse.Namespace) -> Config:
    """The config with the command line applied."""
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    default_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_dir
    cfg.load_from, cfg.resume = resolve_checkpoint(args.checkpoint), False
    if args.show_dir:
        hooks = [h for h in cfg.get('custom_hooks', []) if h['type'] == 'PredictionVisualizationHook']
        if not hooks:
            raise ValueError('--show-dir needs a PredictionVisualizationHook in custom_hooks of the config')
        hooks[0]['out_dir'] = args.show_dir
    return cfg


def provenance(cfg: Config) -> dict[str, str]:
    """What a number needs beside it to be compared later."""
    digest = hashlib.sha256(Path(cfg.load_from).read_bytes()).hexdigest()
    return {
        'config': str(cfg.filename),
        'checkpoint': cfg.load_from,
        'checkpoint_sha256': digest,
        'pvvae_plugin': __version__,
        'torch': torch.__version__,
    }


def main() -> None:
    args = parse_args()
    cfg = configure(args)
    if args.launcher == 'pytorch':
        init_cpu_process_group()
    metrics = Runner.from_cfg(cfg).test()
    if args.out and is_main_process():
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({'metrics': metrics, **provenance(cfg)}, indent=2) + '\n')
        print(f'metrics written to {out}')


if __name__ == '__main__':
    main()

"""Evaluate a checkpoint with the test set and metrics of a config.

python tools/test.py configs/pvvae_demo.py work_dirs/pvvae_demo --out metrics.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from pvvae_plugin import __version__
from pvvae_plugin.apis import add_launch_arguments, load_config
from pvvae_plugin.models.pretrained import resolve_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_launch_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file, or the work directory of a run (its last checkpoint)')
    parser.add_argument('--out', metavar='JSON', help='write the metrics and what they were measured on to this file')
    parser.add_argument('--show-dir', metavar='DIR', help='write strips and videos of the first clips here')
    return parser.parse_args()


def configure(args: argparse.Namespace) -> Config:
    """The config with the command line applied."""
    cfg = load_config(args)
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
    metrics = Runner.from_cfg(cfg).test()
    if args.out and is_main_process():
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({'metrics': metrics, **provenance(cfg)}, indent=2) + '\n')
        print(f'metrics written to {out}')


if __name__ == '__main__':
    main()

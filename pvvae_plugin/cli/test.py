"""Evaluate a checkpoint with the test set and metrics of a config.

pvvae test pvvae_demo work_dirs/pvvae_demo --out metrics.json
python tools/test.py configs/pvvae_demo.py work_dirs/pvvae_demo --out metrics.json
bash tools/dist_test.sh configs/dit_pvvae.py work_dirs/dit_pvvae 8 --out metrics.json

A VAE reconstructs and predicts the test clips. A generator's videos are compared with real ones. The JSON file contains
the metrics, the config and checkpoint they were measured with and, for each distance between sets of videos, a record
with confidence interval, noise floor, protocol and weights.
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper

from pvvae_plugin import __version__
from pvvae_plugin.cli.launching import add_launch_arguments, end_processes, find_missing, load_config
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config.clip_facts import type_name
from pvvae_plugin.datasets.checking.stuck_workers import limit_reading, naming_files
from pvvae_plugin.engine import build_runner
from pvvae_plugin.files import check_writable, file_sha256, write_json
from pvvae_plugin.models.checkpoints import OWN_WEIGHTS, check_brings_weights, check_checkpoint, resolve_checkpoint


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    add_launch_arguments(parser)
    parser.add_argument(
        'checkpoint',
        help='checkpoint file, or work directory of a run (uses its last checkpoint); "pretrained" for the weights '
        'that the DiffusersVAE of the config loads',
    )
    parser.add_argument('--out', metavar='JSON', help='write the metrics, with config and checkpoint, to this file')
    parser.add_argument('--show-dir', metavar='DIR', help='write strips and videos of the first clips to this folder')
    return parser.parse_args(argv)


def configure(args: argparse.Namespace) -> Config:
    """Return the config with the command line applied."""
    cfg = load_config(args)
    for name in ('dataloader', 'evaluator', 'cfg'):
        if cfg.get(f'test_{name}') is None:  # test as in validation, including its overrides
            cfg[f'test_{name}'] = copy.deepcopy(cfg[f'val_{name}'])
        elif ignored := [k for k in args.cfg_options or () if k.split('.')[0] == f'val_{name}']:
            raise ValueError(
                f'{cfg.filename} defines test_{name}, so {ignored[0]} would have no effect; give '
                f'{ignored[0].replace("val_", "test_", 1)}'
            )
    cfg.resume = False
    missing = find_missing(cfg, 'test')
    if args.checkpoint == OWN_WEIGHTS:
        check_brings_weights(cfg.model.backbone)
        if 'head' in cfg.model:
            raise ValueError(
                f'{cfg.filename} configures a generator, whose head has no pretrained weights; give a checkpoint'
            )
        cfg.load_from = None
    else:
        cfg.load_from = missing.collect(resolve_checkpoint, args.checkpoint)
    missing.report()
    if cfg.load_from:
        check_checkpoint(cfg.load_from)
    if args.show_dir:
        drawing = ('PredictionVisualizationHook', 'GenerationVisualizationHook')
        hooks = [h for h in cfg.get('custom_hooks') or [] if type_name(h) in drawing]
        if not hooks:
            raise ValueError(f'--show-dir needs a {" or ".join(drawing)} in custom_hooks of the config')
        hooks[0]['out_dir'] = args.show_dir
    return cfg


def provenance(cfg: Config, own_weights: dict[str, str] | None) -> dict[str, Any]:
    """Return the config, data, weights and versions behind the metrics."""
    source = own_weights
    if cfg.load_from:
        source = {'path': cfg.load_from, 'sha256': file_sha256(cfg.load_from)}
    return {
        'config': str(cfg.filename),
        'overrides': cfg.get('command_line_overrides') or {},
        'dataset': cfg.test_dataloader.dataset.to_dict(),
        'test_cfg': cfg.test_cfg.to_dict(),
        'checkpoint': source['path'],
        'checkpoint_sha256': source['sha256'],
        'pvvae_plugin': __version__,
        'torch': torch.__version__,
    }


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = configure(args)
    if args.out:
        check_writable(args.out)
    cfg.pop('strategy', None)  # sharding is for training; each process tests with all weights
    runner = build_runner(cfg)
    with naming_files():
        limit_reading(runner.test_dataloader)  # builds the metrics as well
        metrics = runner.test()
    if args.out and is_main_process():
        records = {
            name: record
            for metric in runner.test_evaluator.metrics
            for name, record in getattr(metric, 'records', {}).items()
        }
        unwrapped = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own_weights = getattr(unwrapped.backbone, 'source', None)
        content = {'metrics': metrics, 'records': records, **provenance(cfg, own_weights)}
        write_json(args.out, content)
        print(f'metrics written to {args.out}')
    end_processes()

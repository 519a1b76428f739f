"""Train by a config of this project.

python train.py configs/falling_bars.py [--work-dir DIR] [--cfg-options K=V ...]
"""

import argparse

import example_project  # noqa: F401  (before the config is read: it makes 'pvvae_plugin::' known)
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--work-dir', default='work_dirs/falling_bars')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    cfg.work_dir = args.work_dir
    Runner.from_cfg(cfg).train()

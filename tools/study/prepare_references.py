"""Compute the features of real clips that a generator's config compares with, so that runs side by side find them.

python tools/study/prepare_references.py CONFIG
"""

from __future__ import annotations

import argparse

from mmengine.registry import init_default_scope

from pvvae_plugin.apis import read_config
from pvvae_plugin.registry import METRICS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a generator, with a test_evaluator')
    cfg = read_config(parser.parse_args().config)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    frames = cfg.test_dataloader.dataset.clip_len
    for metric in map(METRICS.build, cfg.test_evaluator):
        if hasattr(metric, 'prepare'):
            metric.prepare(frames, cfg.test_cfg.num_samples)


if __name__ == '__main__':
    main()

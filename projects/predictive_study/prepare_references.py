"""Compute and cache the reference features of a generator's config before parallel runs use them.

    python -m projects.predictive_study.prepare_references CONFIG
    python -m projects.predictive_study.prepare_references CONFIG --reconstruct CLIPS.npy

With --reconstruct, the VAE's reconstructions of the real clips of the first metric are written first. Generated clips
are compared with these as well, which measures the generator alone.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from numpy.lib.format import open_memmap

from pvvae_plugin.config import read_config
from pvvae_plugin.evaluation import resolve_protocol
from pvvae_plugin.evaluation.class_accuracy import reconstruct
from pvvae_plugin.evaluation.reference import real_clips_config
from pvvae_plugin.evaluation.substitutes import readable_clips
from pvvae_plugin.models.checkpoints import load_backbone
from pvvae_plugin.progress import ProgressBar
from pvvae_plugin.registry import DATASETS, METRICS, MODELS
from pvvae_plugin.visualization import to_uint8

BATCH = 16


def write_reconstructions(cfg: Config, path: Path) -> None:
    """Write reconstructions of the real clips of the first metric as uint8 ``(N, T, H, W, 3)``.

    Clips that replace an unreadable file are skipped; the log reports how many.
    """
    metric = cfg.test_evaluator[0]
    protocol = resolve_protocol(metric.protocol.to_dict() if isinstance(metric.protocol, dict) else metric.protocol)
    dataset = DATASETS.build(real_clips_config(metric.reference.dataset, protocol))
    vae = MODELS.build(cfg.model.backbone).to(get_device()).eval()
    load_backbone(vae, cfg.model.backbone_checkpoint)
    # The reference needs two sets: one for the comparison, and one for its noise floor.
    count = min(len(dataset), 2 * (metric.reference.get('num_samples') or protocol.num_samples))
    indices = [i * len(dataset) // count for i in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    clips = readable_clips('real clips', dataset, indices)
    written, done, bar = None, 0, ProgressBar(count, file=sys.stderr)
    while batch := [sample['inputs'] for _, sample in itertools.islice(clips, BATCH)]:
        video = torch.stack(batch).float().div_(127.5).sub_(1.0)
        made = np.stack([to_uint8(clip) for clip in reconstruct(vae, video).cpu()])
        if written is None:  # memory-mapped: several GB at 256 px
            written = open_memmap(path, mode='w+', dtype=made.dtype, shape=(count, *made.shape[1:]))
        written[done : done + len(made)] = made
        done += len(made)
        bar.update(len(made))
    print(file=sys.stderr)
    written.flush()
    if done < count:  # the header of the file has the number of clips
        shorter = path.with_name(f'.{path.name}')
        np.save(shorter, written[:done])
        os.replace(shorter, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='generator config with a test_evaluator')
    parser.add_argument(
        '--reconstruct', type=Path, metavar='CLIPS.npy', help='write reconstructions of real clips to this file'
    )
    args = parser.parse_args()
    cfg = read_config(args.config)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    if args.reconstruct:
        write_reconstructions(cfg, args.reconstruct)
    frames = cfg.test_dataloader.dataset.clip_len
    for metric in map(METRICS.build, cfg.test_evaluator):
        if hasattr(metric, 'prepare'):
            metric.prepare(frames, cfg.test_cfg.num_samples)


if __name__ == '__main__':
    main()

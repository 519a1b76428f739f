"""Save pictures of a config's training clips, one per clip, with dropped frames in orange.

pvvae browse pvvae_demo --num 8
python tools/browse_dataset.py configs/pvvae_ucf101.py --split train --num 8 --out-dir work_dirs/browse
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmengine.registry import init_default_scope
from PIL import Image

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.datasets import ClipIndex
from pvvae_plugin.functional.keyed_random import derive_key
from pvvae_plugin.registry import DATASETS
from pvvae_plugin.temporal import groups_to_frames
from pvvae_plugin.visualization.strips import draw_strip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument(
        '--num', type=int, default=8, help='number of clips, evenly spaced over the dataset (default: 8)'
    )
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/browse'), help='folder for the pictures')
    add_override_argument(parser)
    args = parser.parse_args(argv)
    if args.num < 1:
        parser.error(f'--num must be a positive integer, got {args.num}')
    return args


def main(argv: list[str] | None = None) -> int:
    """Write the pictures, print a summary, and return the exit code."""
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    loader = cfg.get(f'{args.split}_dataloader')
    if not loader:
        print(f'{args.config} has no {args.split}_dataloader')
        return 1
    dataset = DATASETS.build(loader.dataset)
    classes = dataset.metainfo.get('classes')
    print(f'{type(dataset).__name__}: {len(dataset)} clips, {len(classes) if classes else "no"} classes')

    temporal_ratio = find_temporal_ratio(loader.dataset)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    num = min(args.num, len(dataset))
    for i in range(num):
        index = i * len(dataset) // num
        sample = dataset[ClipIndex(index, derive_key('browse', index))]
        meta = sample['data_samples'].metainfo
        frames = sample['inputs'].permute(1, 2, 3, 0).numpy()  # (T, H, W, 3)
        groups = meta.get('observed_groups')
        observed = groups_to_frames(sum(groups), temporal_ratio) if groups and temporal_ratio else len(frames)
        label = meta.get('label')
        name = 'no label' if label is None else classes[label] if classes else f'label {label}'
        picture = draw_strip([frames], [f'{name}\n{observed} of {len(frames)} observed'], num_observed=observed)
        path = args.out_dir / f'{args.split}_{index:06d}.png'
        Image.fromarray(picture).save(path)
        size = ' x '.join(map(str, frames.shape[:3]))
        replaced = f', in place of {meta["substituted_path"]}' if 'substituted_path' in meta else ''
        print(f'{path}: {size}, {name}, {observed} observed, {meta.get("path")}{replaced}')
    return 0


def find_temporal_ratio(cfg: Any) -> int | None:
    """Return the temporal ratio of the first FutureDropSampler in a dataset config, or None without one."""
    if isinstance(cfg, dict):
        if str(cfg.get('type')).endswith('FutureDropSampler'):
            return cfg.get('temporal_ratio', 4)
        cfg = list(cfg.values())
    if isinstance(cfg, (list, tuple)):
        return next((ratio for entry in cfg if (ratio := find_temporal_ratio(entry))), None)
    return None

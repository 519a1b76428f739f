"""Make videos with a trained generator.

python tools/sample.py configs/dit_demo.py work_dirs/dit_demo --num 14 --out-dir samples
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from PIL import Image

from pvvae_plugin.models.pretrained import check_backbone_source, check_weights, resolve_checkpoint
from pvvae_plugin.registry import MODELS
from pvvae_plugin.visualization import draw_strip, to_uint8, write_video


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the generator')
    parser.add_argument('checkpoint', help='its checkpoint, or the work directory of its run')
    parser.add_argument('--num', type=int, default=8, help='number of videos')
    parser.add_argument('--labels', type=int, nargs='+', help='classes, repeated as needed (default: all in turn)')
    parser.add_argument('--steps', type=int, default=50, help='calls of the network for each video')
    parser.add_argument('--guidance', type=float, default=1.0, help='classifier-free guidance scale, 1 for none')
    parser.add_argument('--solver', choices=['euler', 'heun'], default='euler')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--fps', type=float, default=8)
    parser.add_argument('--out-dir', type=Path, default=Path('samples'))
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='K=V', help='override config entries')
    return parser.parse_args()


def load_generator(cfg: Config, checkpoint: str) -> torch.nn.Module:
    """The generator with the weights of a checkpoint, which names its VAE instead of holding it."""
    model = MODELS.build(cfg.model)
    record = torch.load(resolve_checkpoint(checkpoint), map_location='cpu', weights_only=True)
    check_backbone_source(record.get('backbone_source'), model.backbone_source)
    state = record['state_dict']
    check_weights({n: p for n, p in model.state_dict().items() if n.startswith('head.')}, state)
    model.load_state_dict(state, strict=False)
    return model.to(get_device()).eval()


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    model = load_generator(cfg, args.checkpoint)
    labels = None
    if model.head.null_label is not None:
        given = args.labels or range(model.head.null_label)
        labels = [given[i % len(given)] for i in range(args.num)]
    dataset = cfg.train_dataloader.dataset
    args.out_dir.mkdir(parents=True, exist_ok=True)

    start, clips = time.time(), []
    videos = model.generate(
        args.num,
        dataset.clip_len,
        (dataset.size, dataset.size),
        labels=labels,
        steps=args.steps,
        guidance=args.guidance,
        solver=args.solver,
        seed=args.seed,
        batch_size=args.batch_size,
    )
    for i, video in videos:
        clips.append(to_uint8(video))
        name = f'{i:05d}' + ('' if labels is None else f'_class{labels[i]}')
        write_video(args.out_dir / f'{name}.webm', clips[-1], args.fps)
        left = (time.time() - start) / (i + 1) * (args.num - i - 1)
        print(f'\r{i + 1} of {args.num} videos, {left:.0f} s left ', end='', file=sys.stderr)
    print(file=sys.stderr)
    shown = clips[:16]
    captions = [f'{i}' if labels is None else f'{i}: class {labels[i]}' for i in range(len(shown))]
    Image.fromarray(draw_strip(shown, captions)).save(args.out_dir / 'sheet.png')
    columns = int(np.ceil(np.sqrt(len(clips))))
    blank = [np.zeros_like(clips[0])] * (-len(clips) % columns)
    rows = [np.concatenate((clips + blank)[i : i + columns], axis=2) for i in range(0, len(clips), columns)]
    write_video(args.out_dir / 'grid.webm', np.concatenate(rows, axis=1), args.fps)
    print(f'{len(clips)} videos, sheet.png and grid.webm are in {args.out_dir}')


if __name__ == '__main__':
    main()

"""Parameters and floating-point operations of a config's VAE, in a second and for any size of clip.

    python tools/analysis/get_flops.py configs/pvvae_ucf101.py
    python tools/analysis/get_flops.py configs/pvvae_ucf101.py --clip 17 512 512

A FLOP is one operation: a multiply-add counts 2, attention included. Operations are counted on the meta device, which
computes nothing; fvcore can trace real tensors only, gives the same numbers (the tests hold the two together), and
here makes the table of parameters.
"""

from __future__ import annotations

import argparse

import torch
from fvcore.nn import parameter_count_table
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from pvvae_plugin.engine.cost import backbone_cost
from pvvae_plugin.registry import MODELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--clip', nargs=3, type=int, metavar=('T', 'H', 'W'), default=(17, 256, 256))
    parser.add_argument('--depth', type=int, default=1, help='how deep the table of parameters goes')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='K=V', help='override config entries')
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))

    cost = backbone_cost(cfg.model.backbone, *args.clip)
    with torch.device('meta'):
        vae = MODELS.build(cfg.model.backbone)
    print(parameter_count_table(vae, max_depth=args.depth))
    t, h, w = args.clip
    total = cost.encode_flops + cost.decode_flops
    print(f'\n{type(vae).__name__} of {args.config}, one clip of {t} x {h} x {w}:')
    print(f'  parameters  {cost.parameters / 1e6:10.2f} M')
    print(f'  encode      {cost.encode_flops / 1e9:10.2f} GFLOP')
    print(f'  decode      {cost.decode_flops / 1e9:10.2f} GFLOP')
    print(f'  total       {total / 1e9:10.2f} GFLOP')
    kept = cost.encode_activation_bytes + cost.decode_activation_bytes
    print(f'  kept for the backward pass, float32: {kept / 2**30:.2f} GiB')


if __name__ == '__main__':
    main()

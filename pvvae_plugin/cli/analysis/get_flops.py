"""Count the parameters and floating-point operations of a config's networks, for its clips or for any clip size.

    pvvae get-flops pvvae_ucf101
    python tools/analysis/get_flops.py configs/pvvae_ucf101.py
    python tools/analysis/get_flops.py configs/dit_pvvae.py --clip 17 512 512

A FLOP is one operation: a multiply-add counts as 2, and attention is included. Operations are counted on the meta
device, which takes seconds. fvcore, which can only trace real tensors, gives the same numbers (the tests compare both);
here it prints the parameter tables.
"""

from __future__ import annotations

import torch
from fvcore.nn import parameter_count_table
from mmengine.config import Config
from mmengine.registry import init_default_scope

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, clip_geometry, read_config
from pvvae_plugin.engine.cost import BackboneCost, HeadCost, backbone_cost, head_cost
from pvvae_plugin.registry import MODELS


def print_backbone(name: str, cost: BackboneCost) -> None:
    total = cost.encode_flops + cost.decode_flops
    kept = cost.encode_activation_bytes + cost.decode_activation_bytes
    print(f'\n{name}:')
    print(f'  parameters  {cost.parameters / 1e6:10.2f} M')
    print(f'  encode      {cost.encode_flops / 1e9:10.2f} GFLOP')
    print(f'  decode      {cost.decode_flops / 1e9:10.2f} GFLOP')
    print(f'  total       {total / 1e9:10.2f} GFLOP')
    print(f'  kept for the backward pass, float32: {kept / 2**30:.2f} GiB')


def print_head(name: str, cost: HeadCost) -> None:
    print(f'\n{name}:')
    print(f'  parameters  {cost.parameters / 1e6:10.2f} M')
    print(f'  one call    {cost.flops / 1e9:10.2f} GFLOP')
    print(f'  100 calls   {cost.flops / 1e10:10.2f} TFLOP per clip, without guidance and decoding')
    print(f'  kept for the backward pass, float32: {cost.activation_bytes / 2**30:.2f} GiB')


def config_clip(cfg: Config) -> tuple[int, int, int]:
    """Return length, height and width of the config's clips."""
    try:
        num_frames, size = clip_geometry(cfg)
    except ValueError as error:
        raise ValueError(f'{cfg.filename} does not set the length and size of its clips; pass --clip T H W') from error
    return num_frames, *size


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config of a VAE or a generator')
    parser.add_argument(
        '--clip', nargs=3, type=int, metavar=('T', 'H', 'W'), help="length and size of the clip (default: the config's)"
    )
    parser.add_argument('--depth', type=int, default=1, help='depth of the parameter tables (default: 1)')
    add_override_argument(parser)
    args = parser.parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    shape = args.clip or config_clip(cfg)
    clip = ' x '.join(map(str, shape))

    vae = backbone_cost(cfg.model.backbone, *shape)
    print_table(cfg.model.backbone, args.depth)
    print_backbone(f'{cfg.model.backbone.type} of {args.config}, one clip of {clip}', vae)
    if 'head' in cfg.model:
        head = head_cost(cfg.model.head, vae.latent_shape)
        print()
        print_table(cfg.model.head, args.depth)
        latents = ' x '.join(map(str, vae.latent_shape))
        print_head(f'{cfg.model.head.type} of {args.config}, latents of {latents} from one clip of {clip}', head)


def print_table(network: dict, depth: int) -> None:
    with torch.device('meta'):
        print(parameter_count_table(MODELS.build(network), max_depth=depth))

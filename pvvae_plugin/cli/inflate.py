"""Initialize a video VAE from an image VAE with the same layout, as a start for predictive training.

pvvae inflate pvvae_ucf101 image_vae.safetensors inflated/pvvae
python tools/inflate_vae.py configs/pvvae_ucf101.py image_vae.safetensors inflated/pvvae

To train it, set in the config:

    model = dict(backbone=dict(_delete_=True, type='PretrainedVAE', pretrained='inflated/pvvae'))

The image VAE must be the 2D form of the config's VAE: same blocks, RMS norms and attention, kernels (D, C, kh, kw).
--rename OLD=NEW maps its parameter names to this package's by substring replacement, in the given order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmengine.registry import init_default_scope
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.models.checkpoints import unwrap_names
from pvvae_plugin.models.vae.inflate import inflate_
from pvvae_plugin.registry import MODELS
from pvvae_plugin.safe_globals import load_safely


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config of the video VAE')
    parser.add_argument('weights', type=Path, help='state dict of the image VAE, .safetensors or .pth')
    parser.add_argument('out_dir', type=Path, help='output folder')
    parser.add_argument(
        '--rename', nargs='+', default=[], metavar='OLD=NEW', help='substrings of parameter names to replace, in order'
    )
    add_override_argument(parser)
    args = parser.parse_args(argv)
    if wrong := [pair for pair in args.rename if pair.count('=') != 1 or pair.startswith('=')]:
        parser.error(f'--rename takes OLD=NEW, got {wrong[0]!r}')
    return args


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, either bare or inside a training checkpoint."""
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}; give the weights of an image VAE')
    if path.suffix == '.safetensors':
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(f'{path} is damaged or not a safetensors file: {error}') from error
    content = load_safely(path)
    state = content.get('state_dict', content) if isinstance(content, dict) else None
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(
            f'{path} is not a state dict; it must map names to tensors, directly or under the key state_dict'
        )
    return state


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    state = read_state(args.weights)
    for pair in args.rename:
        old, new = pair.split('=')
        state = {name.replace(old, new): tensor for name, tensor in state.items()}
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    vae = MODELS.build(cfg.model.backbone)
    inflate_(vae, unwrap_names(state, vae.state_dict()))
    vae.save_pretrained(args.out_dir)
    print(f'{args.out_dir}: {sum(p.numel() for p in vae.parameters()) / 1e6:.1f} M parameters, from {args.weights}')

"""Export a trained VAE to a folder with safetensors weights and a JSON config.

pvvae export pvvae_demo work_dirs/pvvae_demo exported/demo
python tools/export_vae.py configs/pvvae_demo.py work_dirs/quickstart exported/demo

    from pvvae_plugin.models import VideoVAE
    vae = VideoVAE.from_pretrained('exported/demo')

In a config: model.backbone=dict(type='PretrainedVAE', pretrained='exported/demo').
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, clip_geometry, read_config
from pvvae_plugin.models import VideoVAE
from pvvae_plugin.models.checkpoints import check_checkpoint, load_backbone, resolve_checkpoint
from pvvae_plugin.registry import MODELS
from pvvae_plugin.safe_globals import load_safely


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config of the run that trained the VAE')
    parser.add_argument('checkpoint', help='checkpoint file, or the work directory of the run (its last checkpoint)')
    parser.add_argument('out_dir', type=Path, help='output folder')
    add_override_argument(parser)
    return parser.parse_args(argv)


def build_vae(backbone: dict, path: str) -> VideoVAE:
    """Build the VAE of a run. If the run built it from files, the checkpoint describes it, and they are not read."""
    if 'pretrained' not in backbone:
        return MODELS.build(backbone)
    if (description := load_safely(path).get('vae')) is not None:
        return VideoVAE.from_description(description)
    try:
        return MODELS.build(backbone)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{error}. {path} is from an earlier version, which did not record the network of '
            'model.backbone.pretrained: give its folder with --cfg-options model.backbone.pretrained=FOLDER'
        ) from error


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    path = resolve_checkpoint(args.checkpoint)
    check_checkpoint(path)
    if args.out_dir.exists() and not args.out_dir.is_dir():
        raise NotADirectoryError(f'{args.out_dir} is a file; give a folder')
    vae = build_vae(cfg.model.backbone, path)
    load_backbone(vae, path)
    with suppress(ValueError):  # the config does not define a clip size
        vae.trained_frames = clip_geometry(cfg)[0]
    vae.save_pretrained(args.out_dir)
    # Verify now that the export loads back unchanged.
    again = VideoVAE.from_pretrained(args.out_dir).state_dict()
    if any(not torch.equal(tensor, again[name]) for name, tensor in vae.state_dict().items()):
        raise RuntimeError(f'{args.out_dir} does not match the weights of {path}; check the disk and export again')
    parameters = sum(p.numel() for p in vae.parameters())
    print(f'{args.out_dir}: {type(vae).__name__}, {parameters / 1e6:.1f} M parameters, from {path}')

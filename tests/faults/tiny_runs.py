"""A tiny VAE, a generator on it and latents of it, and scripts of tools/ run in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from pvvae_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
TINY = 'latent_channels=4, encoder_widths=(8, 8, 8), decoder_widths=(8, 8, 8)'
VAE_CONFIG = f"""
_base_ = '{ROOT}/configs/pvvae_demo.py'
model = dict(backbone=dict({TINY}))
train_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=1, dataset=dict(length=4))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(length=2))
train_cfg = dict(max_iters=200, val_interval=200)
"""
GENERATOR_CONFIG = f"""
_base_ = '{ROOT}/configs/dit_demo.py'
model = dict(
    backbone=dict({TINY}),
    backbone_checkpoint='{{vae}}',
    head=dict(_delete_=True, type='LatentDiT', latent_channels=4, num_classes=7, depth=2, hidden_size=32, num_heads=2),
)
train_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=1, dataset=dict(length=4))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(length=2))
"""


def script(name: str, *arguments: object) -> None:
    """Run a script of tools/ in this process, as from the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [name, *map(str, arguments), '--debug'])  # errors raise
        try:
            runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
        except SystemExit as ended:
            if ended.code:
                raise


def save_backbone(config: str, path: Path) -> Path:
    backbone = MODELS.build({**Config.fromfile(config).model.backbone, '_scope_': 'pvvae_plugin'})
    torch.save({'state_dict': {f'backbone.{name}': tensor for name, tensor in backbone.state_dict().items()}}, path)
    return path


def make_runs(folder: Path) -> SimpleNamespace:
    """Configs and checkpoints in a folder: ``vae``, its ``checkpoint``, ``generator``, ``latents``, ``empty.pth``."""
    vae, generator = folder / 'vae.py', folder / 'generator.py'
    vae.write_text(VAE_CONFIG)
    checkpoint = save_backbone(vae, folder / 'vae.pth')
    generator.write_text(GENERATOR_CONFIG.format(vae=checkpoint))
    (folder / 'latents').mkdir()
    script('extract_latents.py', vae, checkpoint, folder / 'latents')
    torch.save({'state_dict': {}}, folder / 'empty.pth')
    return SimpleNamespace(vae=vae, generator=generator, checkpoint=checkpoint, folder=folder)

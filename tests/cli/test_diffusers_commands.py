"""A VAE of diffusers by the commands: tested as published, trained predictively, and under a generator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pvvae_plugin.cli.console import main
from pvvae_plugin.models import VideoVAE

pytest.importorskip('diffusers')
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path, diffusers_folders, monkeypatch):
    """Runs a command of ``pvvae`` on a config of ours with the VAE of Wan 2.1's layout as backbone."""
    vae = {'type': 'DiffusersVAE', 'pretrained': diffusers_folders['wan21'], 'subfolder': 'vae', '_delete_': True}
    for name, extra in (('pvvae_demo', ''), ('dit_demo', ', backbone_checkpoint=None, head=dict(latent_channels=16)')):
        (tmp_path / f'{name}.py').write_text(
            f'_base_ = {str(ROOT / "configs" / name)!r} + ".py"\n'
            f'model = dict(backbone={vae}{extra})\n'
            'train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False)\n'
            'val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(length=2))\n'
            'train_cfg = dict(max_iters=1, val_interval=1)\n'
            'param_scheduler = dict(_delete_=True, type="ConstantLR", factor=1.0, by_epoch=False)\n'
        )

    def run(command: str, config: str, *arguments: str) -> Path:
        monkeypatch.chdir(tmp_path)
        main([command, str(tmp_path / f'{config}.py'), *map(str, arguments), '--debug'])  # errors raise
        return tmp_path

    return run


def test_published_weights_are_tested_without_a_checkpoint(run, capsys):
    out = run('test', 'pvvae_demo', 'pretrained', '--out', 'metrics.json') / 'metrics.json'
    content = json.loads(out.read_text())
    assert content['checkpoint'].endswith('wan21/vae')
    assert len(content['checkpoint_sha256']) == 64
    assert content['metrics']['recon/psnr'] > 0


def test_predictive_training_and_export_of_the_checkpoint_alone(run, tmp_path):
    """The published weights may be on another machine."""
    path = run('train', 'pvvae_demo', '--work-dir', 'run') / 'run' / 'iter_1.pth'
    checkpoint = torch.load(path, weights_only=True)
    gone = ('--cfg-options', 'model.backbone.pretrained=gone')
    run('export', 'pvvae_demo', path, 'exported', *gone)
    vae = VideoVAE.from_pretrained(tmp_path / 'exported')
    assert {'padding_token', 'latent_mean', 'vae.decoder.conv_out.weight'} <= set(vae.state_dict())
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, checkpoint['state_dict'][f'backbone.{name}']), name
    assert not any('wan21' in file.read_text() for file in (tmp_path / 'exported').rglob('*.json'))  # no local paths
    del checkpoint['vae']
    torch.save(checkpoint, path)
    with pytest.raises(FileNotFoundError, match="no folder 'gone'.*earlier version.*model.backbone.pretrained=FOLDER"):
        run('export', 'pvvae_demo', path, 'exported', *gone)


@pytest.mark.long
def test_a_generator_on_published_latents(run):
    """Its statistics are the published ones, its checkpoint names the weights, and so do cached latents."""
    work_dir = run('train', 'dit_demo', '--work-dir', 'run') / 'run'
    saved = torch.load(work_dir / 'iter_1.pth', weights_only=True)
    assert saved['backbone_source']['path'].endswith('wan21/vae')
    assert saved['state_dict']['backbone.latent_std'][:2].tolist() == pytest.approx([2.8184, 1.4541])
    assert {name for name in saved['state_dict'] if name.startswith('backbone.vae')} == set()
    cache = run('extract-latents', 'dit_demo', 'pretrained', 'latents', '--split', 'val') / 'latents'
    manifest = json.loads((cache / 'manifest.json').read_text())
    assert manifest['source']['checkpoint_sha256'] == saved['backbone_source']['sha256']


def test_a_backbone_without_weights_of_its_own_needs_a_checkpoint(run, tmp_path):
    (tmp_path / 'pvvae_demo.py').write_text(f'_base_ = {str(ROOT / "configs" / "pvvae_demo.py")!r}\n')
    with pytest.raises(ValueError, match='is a PredictiveVAE: give a checkpoint'):
        run('test', 'pvvae_demo', 'pretrained')

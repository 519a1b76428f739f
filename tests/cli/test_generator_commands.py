"""The generator's demo config: train on a VAE's run, sample from the generator's."""

from __future__ import annotations

import json

import pytest
import torch
from commands import pvvae
from mmengine.config import Config

from pvvae_plugin import config_path
from pvvae_plugin.registry import MODELS


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A work directory of a VAE (not trained) and one of a generator on it."""
    root = tmp_path_factory.mktemp('runs')
    cfg = Config.fromfile(config_path('dit_demo.py'))
    vae = MODELS.build(cfg.model.backbone)
    (root / 'vae').mkdir()
    state = {f'backbone.{name}': tensor for name, tensor in vae.state_dict().items()}
    torch.save({'state_dict': state}, root / 'vae' / 'iter_1.pth')
    options = [f'model.backbone_checkpoint={root}/vae', 'train_cfg.max_iters=4', 'default_hooks.checkpoint.interval=2']
    options += ['param_scheduler.0.end=2', 'param_scheduler.1.begin=2', 'train_dataloader.batch_size=2']
    options += ['val_dataloader.dataset.length=2', 'val_dataloader.batch_size=2']
    hooks = [hook.type for hook in cfg.custom_hooks]
    options += [f'custom_hooks.{hooks.index("LatentStatisticsHook")}.num_clips=4']
    pvvae('train', 'dit_demo', '--work-dir', root / 'dit', '--cfg-options', *options)
    return root, options


def test_checkpoints_leave_the_vae_out_and_resume(runs, tmp_path):
    root, options = runs
    saved = torch.load(root / 'dit' / 'iter_4.pth', weights_only=True)
    kept = {name for name in saved['state_dict'] if name.startswith('backbone.')}
    assert kept == {'backbone.latent_mean', 'backbone.latent_std'}
    assert len(saved['backbone_source']['sha256']) == 64
    assert saved['backbone_source']['path'] == f'{root}/vae/iter_1.pth'
    assert saved['trained_on'] == [{'num_frames': 9, 'size': [32, 32], 'latent_shape': [32, 3, 4, 4]}]
    arguments = ['--work-dir', str(tmp_path), '--resume', str(root / 'dit' / 'iter_2.pth'), '--cfg-options', *options]
    pvvae('train', 'dit_demo', *arguments)
    resumed = torch.load(tmp_path / 'iter_4.pth', weights_only=True)
    for name, tensor in saved['state_dict'].items():
        assert torch.equal(tensor, resumed['state_dict'][name]), name


def test_samples_of_a_run_by_averaged_and_by_raw_weights(runs, tmp_path):
    root, options = runs
    arguments = [
        'dit_demo',
        str(root / 'dit'),
        '--num',
        '2',
        '--num-inference-steps',
        '2',
        '--labels',
        'orbit',
        '0',
    ]
    for name, weights in (('averages', ()), ('raw', ('--raw-weights',))):
        out = pvvae('sample', *arguments, *weights, '--out-dir', tmp_path / name, '--cfg-options', options[0])
        assert '2 videos, sheet.png, grid.webm, grid.gif are in' in out
        names = sorted(path.name for path in (tmp_path / name).iterdir())
        sheets = ['grid.gif', 'grid.webm', 'samples.json', 'sheet.png']
        assert names == ['00000_orbit.webm', '00001_linear.webm', *sheets]
        manifest = json.loads((tmp_path / name / 'samples.json').read_text())
        saved = torch.load(root / 'dit' / 'iter_4.pth', weights_only=True)
        assert manifest['run']['vae_sha256'] == saved['backbone_source']['sha256']
        assert manifest['complete'] and manifest['run']['raw_weights'] == bool(weights)
    videos = [(tmp_path / name / '00000_orbit.webm').read_bytes() for name in ('averages', 'raw')]
    assert videos[0] != videos[1]


def test_a_size_that_was_not_trained_is_told(runs, tmp_path):
    root, options = runs
    arguments = ('dit_demo', root / 'dit', '--num', 1, '--num-inference-steps', 1, '--out-dir', tmp_path)
    out = pvvae('sample', *arguments, '--size', 16, 16, '--cfg-options', options[0])
    assert 'clips of 9 x 16 x 16 (latents 3 x 2 x 2)' in out and 'trained on 9 x 32 x 32 (latents 3 x 4 x 4)' in out


def test_another_vae_is_refused(runs, tmp_path):
    root, _ = runs
    vae = MODELS.build(Config.fromfile(config_path('dit_demo.py')).model.backbone)
    torch.save({'state_dict': {f'backbone.{n}': p for n, p in vae.state_dict().items()}}, tmp_path / 'other.pth')
    options = ('--cfg-options', f'model.backbone_checkpoint={tmp_path}/other.pth')
    with pytest.raises(ValueError, match='was trained on the VAE'):
        pvvae('sample', 'dit_demo', root / 'dit', '--out-dir', tmp_path, *options)

"""The generator's demo config as a user runs it: train on a VAE's run, sample from the generator's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config

from pvvae_plugin import config_path
from pvvae_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, returncode: int = 0) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == returncode, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """A work directory of a VAE (not trained) and one of a generator on it."""
    root = tmp_path_factory.mktemp('runs')
    vae = MODELS.build(Config.fromfile(config_path('dit_demo.py')).model.backbone)
    (root / 'vae').mkdir()
    state = {f'backbone.{name}': tensor for name, tensor in vae.state_dict().items()}
    torch.save({'state_dict': state}, root / 'vae' / 'iter_1.pth')
    options = [f'model.backbone_checkpoint={root}/vae', 'train_cfg.max_iters=4', 'default_hooks.checkpoint.interval=2']
    options += ['param_scheduler.0.end=2', 'param_scheduler.1.begin=2', 'train_dataloader.batch_size=2']
    options += ['custom_hooks.3.num_clips=4']
    command = ['tools/train.py', 'configs/dit_demo.py', '--work-dir', str(root / 'dit'), '--cfg-options', *options]
    run(*command)
    return root, options


def test_checkpoints_leave_the_vae_out_and_resume(runs, tmp_path):
    root, options = runs
    saved = torch.load(root / 'dit' / 'iter_4.pth', weights_only=True)
    kept = {name for name in saved['state_dict'] if name.startswith('backbone.')}
    assert kept == {'backbone.latent_mean', 'backbone.latent_std'}
    assert len(saved['backbone_source']['sha256']) == 64
    arguments = ['--work-dir', str(tmp_path), '--resume', str(root / 'dit' / 'iter_2.pth'), '--cfg-options', *options]
    run('tools/train.py', 'configs/dit_demo.py', *arguments)
    resumed = torch.load(tmp_path / 'iter_4.pth', weights_only=True)
    for name, tensor in saved['state_dict'].items():
        assert torch.equal(tensor, resumed['state_dict'][name]), name


def test_samples_are_files_that_play_and_follow_the_seed(runs, tmp_path):
    root, options = runs
    for name, batch_size in (('a', '2'), ('b', '3')):
        out = run(
            *(
                'tools/sample.py',
                'configs/dit_demo.py',
                str(root / 'dit'),
                '--num',
                '3',
                '--steps',
                '2',
                '--labels',
                '5',
            ),
            *('--labels', '5', '--guidance', '2', '--batch-size', batch_size, '--out-dir', str(tmp_path / name)),
            *('--cfg-options', options[0]),
        )
        assert '3 videos' in out
    names = sorted(path.name for path in (tmp_path / 'a').iterdir())
    assert names == [*(f'0000{i}_class5.webm' for i in range(3)), 'grid.webm', 'sheet.png']
    for name in names[:3]:
        frames = []
        for folder in ('a', 'b'):
            capture = cv2.VideoCapture(str(tmp_path / folder / name))
            ok, frame = capture.read()
            assert ok
            frames.append(frame.astype(int))
        assert abs(frames[0] - frames[1]).max() <= 2


def test_another_vae_is_refused(runs, tmp_path):
    root, _ = runs
    vae = MODELS.build(Config.fromfile(config_path('dit_demo.py')).model.backbone)
    torch.save({'state_dict': {f'backbone.{n}': p for n, p in vae.state_dict().items()}}, tmp_path / 'other.pth')
    out = run(
        *('tools/sample.py', 'configs/dit_demo.py', str(root / 'dit'), '--out-dir', str(tmp_path)),
        *('--cfg-options', f'model.backbone_checkpoint={tmp_path}/other.pth'),
        returncode=1,
    )
    assert 'was trained on the VAE' in out

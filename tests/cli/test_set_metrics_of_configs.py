"""Tests of configs with distances between sets of videos: on two processes what one gives, and its file."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import pvvae
from mmengine.config import Config

from pvvae_plugin import config_path
from pvvae_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]

# A project of somebody's own: an extractor that is registered in a module beside the config.
SETTINGS = """
custom_imports = dict(imports=['tiny_extractors'])
protocol = dict(base='paper', num_frames=9, num_samples=7, inception_splits=2)
real_clips = dict(type='SyntheticVideoDataset', length=17, size=32, difficulty='plain', seed=2)
reference = dict(dataset=real_clips, num_workers=0, cache_dir='{root}/cache')
val_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=2, dataset=dict(length=7))
"""
GENERATOR = """
model = dict(backbone_checkpoint='{root}/vae')
test_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=2, dataset=dict(length=7))
test_cfg = dict(num_samples=7, batch_size=2, sampling=dict(num_inference_steps=2))
test_evaluator = [
    dict(type='FVD', extractor=dict(type='Statistics'), protocol=protocol, reference=reference),
    dict(type='KVD', extractor=dict(type='Statistics'), protocol=protocol, reference=reference),
    dict(type='VideoInceptionScore', extractor=dict(type='Colors'), protocol=protocol, reference=reference),
]
"""
VAE = """
test_dataloader = dict(_base_.val_dataloader, **val_dataloader)
test_dataloader['dataset'] = dict(_base_.val_dataloader.dataset, length=7)
test_cfg = dict()
test_evaluator = [
    dict(type='VideoReconstruction'),
    dict(type='FVD', extractor=dict(type='Statistics'), protocol=protocol),
    dict(type='KVD', extractor=dict(type='Statistics'), protocol=protocol),
    dict(type='FuturePrediction'),
    dict(type='LatentTemporalDistance'),
]
"""


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Work directories of a VAE and of a generator, neither trained for longer than it takes to have checkpoints."""
    root = tmp_path_factory.mktemp('runs')
    for name, base, body in (('gen', 'dit_demo', GENERATOR), ('rec', 'pvvae_demo', VAE)):
        text = f"_base_ = '{config_path(base + '.py')}'\n" + (SETTINGS + body).replace('{root}', str(root))
        (root / f'{name}.py').write_text(text)
    backbone = Config.fromfile(config_path('pvvae_demo.py')).model.backbone
    state = {f'backbone.{name}': tensor for name, tensor in MODELS.build(backbone).state_dict().items()}
    (root / 'vae').mkdir()
    torch.save({'state_dict': state}, root / 'vae' / 'iter_1.pth')
    options = [
        'train_cfg.max_iters=1',
        'param_scheduler.0.end=2',
        'param_scheduler.1.begin=0',
        'custom_hooks.4.num_clips=4',
    ]
    options += [
        'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
    ]
    options += ['train_cfg.val_interval=9', 'custom_hooks.6.num_inference_steps=1']
    pvvae('train', root / 'gen.py', '--work-dir', root / 'dit', '--cfg-options', *options)
    return root


def call(command):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    for name, folder in (('PYTHONPATH', ROOT / 'tests'), ('PATH', Path(sys.executable).parent)):
        environment[name] = f'{folder}{os.pathsep}{os.environ.get(name, "")}'
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        environment['PORT'] = str(probe.getsockname()[1])
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize(
    ('name', 'checkpoint', 'promised'),
    [
        pytest.param(
            'gen', 'dit', {'gen/FVD9_7', 'gen/FVD9_7_floor', 'gen/KVD9_7', 'gen/IS9_7'}, marks=pytest.mark.long
        ),
        ('rec', 'vae', {'recon/rFVD9_7', 'recon/rKVD9_7', 'recon/psnr', 'predict/k1_mse', 'ltd/i1'}),
    ],
)
def test_two_processes_give_what_one_gives(runs, tmp_path, name, checkpoint, promised):
    """7 clips in batches of 2: the shares of two processes differ, and MMEngine's sampler pads them to 8."""
    config, work_dir = str(runs / f'{name}.py'), str(runs / checkpoint)
    one, two = tmp_path / 'one.json', tmp_path / 'two.json'
    pvvae('test', config, work_dir, '--out', one, '--work-dir', tmp_path, '--show-dir', tmp_path / 'shown')
    call(['bash', 'tools/dist_test.sh', config, work_dir, '2', '--out', str(two), '--work-dir', str(tmp_path)])
    alone, together = (json.loads(path.read_text()) for path in (one, two))
    assert promised <= alone['metrics'].keys() == together['metrics'].keys()
    for key, value in alone['metrics'].items():
        if not key.endswith('_per_frame'):
            assert together['metrics'][key] == pytest.approx(value, rel=1e-6, abs=1e-9), key
    assert list((tmp_path / 'shown' / 'vis' / 'test').glob('*.png'))
    assert {'gen/FVD9_7' if name == 'gen' else 'recon/rFVD9_7'} <= alone['records'].keys()
    record = next(iter(alone['records'].values()))
    assert record['protocol']['num_frames'] == 9 and record['extractor']['weights']['sha256']
    told = pvvae('report', one)
    assert all(f'{number.split("/")[1]} ' in told for number in alone['records'])
    assert len(alone['checkpoint_sha256']) == 64 and 'test_cfg' in alone


def test_overrides_of_the_set_that_is_not_tested_are_refused(runs, tmp_path):
    options = ('--cfg-options', 'val_dataloader.dataset.length=3')
    with pytest.raises(ValueError, match=r'give test_dataloader\.dataset\.length'):
        pvvae('test', runs / 'gen.py', runs / 'dit', '--work-dir', tmp_path, *options)


def test_missing_weights_end_a_test_before_anything_is_made(runs, tmp_path):
    options = ['test_evaluator.0.extractor.type=I3DTorchScript', 'test_evaluator.0.extractor.weights=weights/none.pt']
    with pytest.raises(FileNotFoundError, match=r'(?s)file none\.pt not found.*PVVAE_WEIGHTS'):
        pvvae('test', runs / 'gen.py', runs / 'dit', '--work-dir', tmp_path, '--cfg-options', *options)

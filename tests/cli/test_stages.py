"""The paper's three stages, one from the other, by the paper-size configs at toy widths on files made here."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from pvvae_plugin import config_path
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.registry import MODELS

SIZE = 32
CLASSES = ('ApplyEyeMakeup', 'Archery')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A UCF101 of four videos with its official lists, and a folder of images."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    lists = root / 'ucfTrainTestlist'
    lists.mkdir()
    names = []
    for label, name in enumerate(CLASSES):
        (root / 'videos' / name).mkdir(parents=True)
        for i in range(2):
            path = f'{name}/v_{name}_g0{i + 1}_c01.avi'
            names.append((path, label + 1))
            writer = cv2.VideoWriter(str(root / 'videos' / path), cv2.VideoWriter_fourcc(*'MJPG'), 25, (48, 40))
            background = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
            for t in range(24):
                writer.write(np.roll(background, t, axis=1))
            writer.release()
    (lists / 'classInd.txt').write_text(''.join(f'{i + 1} {name}\n' for i, name in enumerate(CLASSES)))
    (lists / 'trainlist01.txt').write_text(''.join(f'{path} {label}\n' for path, label in names))
    (lists / 'testlist01.txt').write_text(''.join(f'{path}\n' for path, _ in names))
    for split in ('train', 'val'):
        (root / 'images' / split).mkdir(parents=True)
        for i in range(4):
            image = rng.integers(0, 255, (60, 70, 3), dtype=np.uint8)
            cv2.imwrite(str(root / 'images' / split / f'{i}.png'), image)
    return root


def shrink(name, work_dir, data, **options):
    """One of our configs with toy widths, small clips and a few iterations."""
    cfg = Config.fromfile(config_path(f'{name}.py'))
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'experiment_name': f'{work_dir.parent.name}_{name}',
            'model.backbone.encoder_widths': (8, 8, 8, 8, 8),
            'model.backbone.decoder_widths': (8, 8, 8, 8, 8),
            'model.backbone.latent_channels': 4,
            'model.loss.lpips_weight': 0.0,
            'train_cfg.max_iters': 4,
            'train_cfg.val_interval': 4,
            'default_hooks.logger.interval': 1,
            'param_scheduler.0.end': 1,
            'param_scheduler.1.begin': 1,
            'env_cfg.cudnn_benchmark': False,
            **options,
        }
    )
    if cfg.model.discriminator:
        cfg.model.discriminator.base_width = 4
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False, batch_size=2)
        dataset = loader.dataset
        dataset.data_root = dataset.data_root.replace('data/ucf101', str(data)).replace('data/', f'{data}/')
        for key in ('ann_file', 'class_file'):
            if key in dataset:
                dataset[key] = dataset[key].replace('data/ucf101', str(data))
        for step in dataset.pipeline:
            if 'size' in step:
                step.size = SIZE
        for i, resolution in enumerate(loader.get('batch_sampler', {}).get('resolutions', [])):
            resolution.update(size=(32, 48, 64)[i], batch_size=(4, 2, 1)[i])
    return cfg


def run(cfg):
    Runner.from_cfg(cfg).train()
    return torch.load(resolve_checkpoint(cfg.work_dir), weights_only=True)


def test_three_stages(data, tmp_path):
    images = run(shrink('pvvae_images', tmp_path / 'images', data))
    assert not any(name.startswith('discriminator') for name in images['state_dict'])

    predictive = {'load_from': resolve_checkpoint(str(tmp_path / 'images')), 'model.adversarial.start_iter': 2}
    cfg = shrink('pvvae_ucf101', tmp_path / 'predictive', data, **predictive)
    clips = run(cfg)
    scalars = clips['message_hub']['log_scalars']
    assert len(scalars['train/loss']._log_history) == 4
    assert len(scalars['train/loss_gan']._log_history) == 2  # from iteration 2 on
    assert 'train/mse_predicted' in scalars
    assert (tmp_path / 'predictive' / 'vis' / 'latest.png').is_file()
    token = 'backbone.padding_token'
    assert not torch.equal(images['state_dict'][token], clips['state_dict'][token])

    cfg = shrink('pvvae_ucf101_decoder', tmp_path / 'decoder', data)
    cfg.load_from = resolve_checkpoint(str(tmp_path / 'predictive'))
    decoder = run(cfg)
    assert len(decoder['message_hub']['log_scalars']['train/loss_gan']._log_history) == 4
    for name, tensor in decoder['state_dict'].items():
        if name.startswith('backbone.'):
            same = torch.equal(tensor, clips['state_dict'][name])
            assert same is not name.startswith('backbone.decoder.'), name


@pytest.mark.parametrize(
    ('name', 'check'),
    [
        ('pvvae_ucf101_no_prediction', lambda keys: 'mse_predicted' not in keys and 'loss_diff' not in keys),
        ('pvvae_ucf101_no_motion', lambda keys: 'mse_predicted' in keys and 'loss_diff' not in keys),
        ('pvvae_ucf101_gaussian_padding', lambda keys: 'mse_predicted' in keys and 'loss_diff' in keys),
    ],
)
def test_ablations_train_what_they_say(name, check, data, tmp_path):
    cfg = shrink(name, tmp_path / name, data)
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    state = run(cfg)
    assert check({key.removeprefix('train/') for key in state['message_hub']['log_scalars']})
    assert ('backbone.padding_token' in state['state_dict']) is ('gaussian' not in name)


@pytest.mark.parametrize(
    ('name', 'ratios'),
    [
        ('pvvae_ucf101', [1.0]),
        ('pvvae_ucf101_drop75', [0.75]),
        ('pvvae_ucf101_drop50', [0.5]),
        ('pvvae_ucf101_no_prediction', []),
        ('pvvae_ucf101_decoder', []),
    ],
)
def test_dropping_ratios_of_the_configs(name, ratios):
    pipeline = Config.fromfile(config_path(f'{name}.py')).train_dataloader.dataset.pipeline
    assert [step.max_drop_ratio for step in pipeline if step.type == 'FutureDropSampler'] == ratios


@pytest.mark.parametrize('name', ['pvvae_ucf101', 'pvvae_ucf101_decoder', 'pvvae_ucf101_no_prediction'])
def test_a_test_measures_as_the_paper(name):
    cfg = Config.fromfile(config_path(f'{name}.py'))
    metrics = {metric.type: metric for metric in cfg.test_evaluator}
    assert set(metrics) == {'VideoReconstruction', 'FVD', 'FuturePrediction', 'LatentTemporalDistance'}
    assert metrics['FVD'].protocol == 'paper' and 'reference' not in metrics['FVD']  # rFVD
    assert metrics['VideoReconstruction'].lpips.net == 'alex'
    assert cfg.test_dataloader.dataset == cfg.val_dataloader.dataset


def test_every_config_builds_its_network(diffusers_folders):
    names = sorted(path.name for path in Path(config_path('pvvae_demo.py')).parent.glob('*.py'))
    assert len(names) >= 10
    for name in names:
        cfg = Config.fromfile(config_path(name))
        Config.fromstring(cfg.pretty_text, '.py')  # what a work directory keeps can be read again
        if 'pretrained' in cfg.model.backbone:  # whose weights are not here: small ones of the same layout
            cfg.model.backbone.pretrained = diffusers_folders[Path(cfg.model.backbone.pretrained).name]
        with torch.device('meta'):
            vae = MODELS.build(cfg.model.backbone)
        assert vae.temporal_ratio == 4, name

"""The paper-size generator configs: what they say, and that each trains by the scripts, at toy sizes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import pvvae
from mmengine.config import Config
from mmengine.logging import MessageHub

from pvvae_plugin import config_path
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    'dit_pvvae',
    'dit_pvvae_b',
    'dit_pvvae_cached',
    'dit_pvvae_fsdp',
    'dit_pvvae_i2v',
    'dit_pvvae_modern',
    'dit_pvvae_re10k',
)
CLASSES = ('Archery', 'Bowling')


def read(name: str) -> Config:
    return Config.fromfile(config_path(f'{name}.py'))


@pytest.mark.parametrize('name', NAMES)
def test_base_values_are_the_papers(name):
    cfg = read(name)
    optim = cfg.optim_wrapper.head
    assert (optim.optimizer.type, optim.optimizer.lr, optim.dtype) == ('AdamW', 1e-4, 'bfloat16')
    assert (optim.optimizer.betas, optim.optimizer.weight_decay) == ((0.9, 0.999), 0.0)
    assert [scheduler.type for scheduler in cfg.param_scheduler] == ['LinearLR']  # then the rate is constant
    assert cfg.train_cfg.max_iters == (100000 if name == 'dit_pvvae_b' else 250000)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 64
    assert {'type': 'TrainedWeightsEMAHook', 'module': 'head', 'decay': 0.9999} in cfg.custom_hooks
    assert cfg.model.class_dropout == 0.1
    assert cfg.model.get('condition_prob', 0.0) == (0.5 if name == 'dit_pvvae_i2v' else 0.0)
    assert cfg.model.backbone == read('pvvae_ucf101_decoder').model.backbone
    assert cfg.model.backbone_checkpoint == 'work_dirs/pvvae_ucf101_decoder'
    assert cfg.val_evaluator == [{'type': 'FlowLoss'}]
    assert cfg.val_cfg is not None
    if name != 'dit_pvvae_cached':
        steps = [step.type for step in cfg.train_dataloader.dataset.pipeline]
        assert steps == ['ResizeClip', 'RandomCropClip', 'RandomFlipClip', 'PackClip']
        assert cfg.train_dataloader.dataset.clip_len == 17
        assert {step.get('size', 256) for step in cfg.train_dataloader.dataset.pipeline} == {256}


# Channels as published: https://huggingface.co/Wan-AI/Wan2.2-TI2V-5B-Diffusers/blob/main/vae/config.json and others.
@pytest.mark.parametrize(('name', 'channels'), [('wan22', 48), ('wan21', 16), ('cogvideox', 16), ('hunyuan', 16)])
def test_baselines_differ_in_the_vae_alone(name, channels):
    cfg, papers = read(f'dit_{name}').to_dict(), read('dit_pvvae').to_dict()
    backbone = {'type': 'DiffusersVAE', 'pretrained': f'weights/{name}', 'subfolder': 'vae'}
    assert cfg.pop('backbone') == backbone  # the variable of the file that it inherits
    papers['model'] |= {'backbone': backbone, 'backbone_checkpoint': None}
    papers['model']['head']['latent_channels'] = channels
    assert cfg == papers
    finetune, ucf101 = read('pvvae_wan22_finetune').to_dict(), read('pvvae_ucf101').to_dict()
    assert finetune['model']['backbone']['type'] == finetune.pop('backbone')['type'] == 'DiffusersVAE'
    for config in (finetune, ucf101):
        del config['model']['backbone']
    assert finetune == ucf101


@pytest.mark.parametrize('name', NAMES)
def test_a_test_measures_as_the_paper(name):
    """FVD, KVD and, on UCF101, the Inception Score of 2,048 videos of 17 frames, by 100 Euler steps."""
    cfg = read(name)
    wanted = ['FVD', 'KVD'] if name == 'dit_pvvae_re10k' else ['FVD', 'KVD', 'VideoInceptionScore']
    assert [metric.type for metric in cfg.test_evaluator] == wanted
    assert {metric.protocol for metric in cfg.test_evaluator} == {'paper'}
    assert cfg.test_cfg == {
        'type': 'GenerationLoop',
        'num_samples': 2048,
        'batch_size': 8,
        'sampling': {'num_inference_steps': 100, 'guidance_scale': 1.0},
    }
    real = cfg.test_evaluator[0].reference.dataset
    lists = ('train.csv',) if name == 'dit_pvvae_re10k' else ('trainlist01.txt',)
    assert real.ann_file.endswith(lists)
    assert [step.type for step in real.pipeline] == ['ResizeClip', 'CenterCropClip', 'PackClip']


@pytest.mark.parametrize('name', NAMES)
def test_sizes_of_the_networks(name):
    cfg = read(name)
    with torch.device('meta'):
        head = MODELS.build(cfg.model.head)
        backbone = MODELS.build(cfg.model.backbone)
    labels = None if name == 'dit_pvvae_re10k' else 101
    assert head.num_classes == labels
    depth, width, heads = (12, 768, 12) if name == 'dit_pvvae_b' else (28, 1152, 16)
    assert (head.depth, head.hidden_size, head.num_heads) == (depth, width, heads)
    # qkv, proj, up and down, modulation; embedding, time, final modulation, output; classes and "no class"
    block = 3 * width**2 + width**2 + 8 * width**2 + 6 * width**2 + 15 * width
    if name == 'dit_pvvae_modern':
        block += 1536 + 2 * 72  # biases of the gate of SwiGLU, and two norms of heads
    ends = 65 * width + (257 + width + 1) * width + 2 * (width + 1) * width + 64 * (width + 1)
    classes = 0 if labels is None else 102 * width
    assert sum(p.numel() for p in head.parameters()) == depth * block + ends + classes
    if name == 'dit_pvvae':
        assert sum(p.numel() for p in head.parameters()) == pytest.approx(
            674e6, rel=1e-3
        )  # as _base_/dit_model.py says
    assert head.latent_channels == backbone.latent_channels == 64
    assert (backbone.temporal_ratio, backbone.spatial_ratio) == (4, 16)


TINY_MODEL = [
    'model.backbone.latent_channels=4',
    'model.backbone.encoder_widths=(8,8,8,8,8)',
    'model.backbone.decoder_widths=(8,8,8,8,8)',
    'model.backbone.encoder_blocks=1',
    'model.backbone.decoder_blocks=1',
    'model.head.latent_channels=4',
    'model.head.depth=2',
    'model.head.hidden_size=32',
    'model.head.num_heads=2',
]
SHORT_RUN = [
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'param_scheduler.0.end=2',
    'default_hooks.logger.interval=1',
    'custom_hooks.4.num_clips=2',  # LatentStatisticsHook
    'custom_hooks.6.num_clips=2',  # GenerationVisualizationHook
    'custom_hooks.6.num_inference_steps=2',
]


def loaders(*small_steps: str) -> list[str]:
    """Options that make loaders small; ``small_steps`` are the places of sizes in the pipelines."""
    common = [('num_workers', 0), ('persistent_workers', False), ('pin_memory', False), ('batch_size', 2)]
    options = [f'{split}_dataloader.{key}={value}' for split in ('train', 'val') for key, value in common]
    return options + [
        f'{split}_dataloader.dataset.pipeline.{i}.size=32' for split in ('train', 'val') for i in small_steps
    ]


def write_videos(folder: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*'MJPG'), 25, (48, 40))
        background = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        for t in range(24):
            writer.write(np.roll(background, t, axis=1))
        writer.release()


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """UCF101 of three videos, RealEstate10K of three segments, and the run of a VAE."""
    root = tmp_path_factory.mktemp('data')
    names = [f'{CLASSES[i % 2]}/v_{CLASSES[i % 2]}_g0{i + 1}_c01.avi' for i in range(3)]
    write_videos(root / 'ucf101' / 'videos', names)
    lists = root / 'ucf101' / 'ucfTrainTestlist'
    lists.mkdir()
    (lists / 'classInd.txt').write_text(''.join(f'{i + 1} {name}\n' for i, name in enumerate(CLASSES)))
    (lists / 'trainlist01.txt').write_text(''.join(f'{name} {i % 2 + 1}\n' for i, name in enumerate(names)))
    (lists / 'testlist01.txt').write_text(''.join(f'{name}\n' for name in names))
    write_videos(root / 'realestate10k' / 'videos', ['a.avi', 'b.avi'])
    for split in ('train', 'test'):
        rows = ['path,start,end', 'a.avi,0,0.7', 'a.avi,0.2,0.92', 'b.avi,0,0.96']
        (root / 'realestate10k' / f'{split}.csv').write_text('\n'.join(rows) + '\n')
    backbone = read('dit_pvvae').model.backbone
    backbone.update(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
    backbone.update(encoder_blocks=1, decoder_blocks=1, _scope_='pvvae_plugin')
    torch.manual_seed(0)
    state = {f'backbone.{name}': tensor for name, tensor in MODELS.build(backbone).state_dict().items()}
    (root / 'vae').mkdir()
    torch.save({'state_dict': state}, root / 'vae' / 'iter_1.pth')
    return root


def ucf101(data: Path) -> list[str]:
    options = ['model.head.num_classes=2', f'model.backbone_checkpoint={data}/vae']
    for split, name in (('train', 'trainlist01'), ('val', 'testlist01')):
        dataset = f'{split}_dataloader.dataset'
        options.append(f'{dataset}.data_root={data}/ucf101/videos')
        options.append(f'{dataset}.ann_file={data}/ucf101/ucfTrainTestlist/{name}.txt')
        options.append(f'{dataset}.class_file={data}/ucf101/ucfTrainTestlist/classInd.txt')
    return options


def train(name: str, work_dir: Path, *options: str) -> dict:
    arguments = ('--work-dir', work_dir, '--cfg-options', *TINY_MODEL, *SHORT_RUN, *options)
    pvvae('train', ROOT / 'configs' / f'{name}.py', *arguments)
    return torch.load(resolve_checkpoint(str(work_dir)), weights_only=True)


def numbers() -> set[str]:
    """What the last run logged; its checkpoint was written before its validation."""
    return set(MessageHub.get_current_instance().log_scalars)


PROMISED = {'train/loss_flow', 'val/flow/loss', *(f'val/flow/loss_q{i}' for i in range(1, 5))}


@pytest.fixture(scope='module')
def generator(data, tmp_path_factory):
    """The work directory of a run of dit_pvvae.py."""
    work_dir = tmp_path_factory.mktemp('dit')
    train('dit_pvvae', work_dir, *loaders('0', '1'), *ucf101(data))
    assert numbers() >= PROMISED
    assert (work_dir / 'vis' / 'latest.png').is_file()
    return work_dir


@pytest.fixture(scope='module')
def latents(data, tmp_path_factory):
    """What the head comment of dit_pvvae_cached.py says to make."""
    root = tmp_path_factory.mktemp('latents')
    common = ['--cfg-options', *TINY_MODEL, *loaders('0', '1'), *ucf101(data)]
    config = ROOT / 'configs' / 'dit_pvvae.py'
    pvvae('extract-latents', config, data / 'vae', root / 'ucf101', '--flip', '--clips-per-video', 4, *common)
    pvvae('extract-latents', config, data / 'vae', root / 'ucf101_val', '--split', 'val', *common)
    return root


def cached(data: Path, latents: Path) -> list[str]:
    folders = [f'train_dataloader.dataset.data_root={latents}/ucf101']
    folders += [f'val_dataloader.dataset.data_root={latents}/ucf101_val']
    return ['model.head.num_classes=2', f'model.backbone_checkpoint={data}/vae', *loaders(), *folders]


def test_cached_latents_train(data, latents, tmp_path):
    checkpoint = train('dit_pvvae_cached', tmp_path, *cached(data, latents))
    assert numbers() >= PROMISED
    manifest = json.loads((latents / 'ucf101' / 'manifest.json').read_text())
    assert manifest['num_clips'] == 12
    torch.testing.assert_close(
        checkpoint['state_dict']['backbone.latent_mean'], torch.tensor(manifest['latent_mean']), rtol=0, atol=1e-6
    )


def test_realestate10k_trains_without_classes(data, tmp_path):
    options = [f'model.backbone_checkpoint={data}/vae', *loaders('0', '1')]
    for split, name in (('train', 'train'), ('val', 'test')):
        options.append(f'{split}_dataloader.dataset.data_root={data}/realestate10k/videos')
        options.append(f'{split}_dataloader.dataset.ann_file={data}/realestate10k/{name}.csv')
    checkpoint = train('dit_pvvae_re10k', tmp_path, *options)
    assert numbers() >= PROMISED
    assert not any('class_embedding' in name for name in checkpoint['state_dict'])


@pytest.mark.long
def test_a_conditioned_generator_starts_from_another_and_keeps_its_statistics(data, generator, tmp_path):
    options = [f'load_from={generator}', *loaders('0', '1'), *ucf101(data), 'custom_hooks.4.num_clips=1']
    checkpoint = train('dit_pvvae_i2v', tmp_path, *options)
    assert numbers() >= PROMISED
    before = torch.load(resolve_checkpoint(str(generator)), weights_only=True)['state_dict']
    for name in ('backbone.latent_mean', 'backbone.latent_std'):
        assert torch.equal(checkpoint['state_dict'][name], before[name])


def test_the_test_script_gives_the_same_loss_for_clips_and_for_their_latents(data, generator, latents, tmp_path):
    """With no test of their own, configs are tested as they are validated."""
    found = {}
    untested = [f'test_{part}=None' for part in ('dataloader', 'cfg', 'evaluator')]
    for name, options in (
        ('dit_pvvae', [*loaders('0', '1'), *ucf101(data)]),
        ('dit_pvvae_cached', cached(data, latents)),
    ):
        out = tmp_path / f'{name}.json'
        options = [*TINY_MODEL, *SHORT_RUN, *options, *untested]
        arguments = ('--work-dir', tmp_path / name, '--out', out, '--cfg-options', *options)
        pvvae('test', ROOT / 'configs' / f'{name}.py', generator, *arguments)
        found[name] = json.loads(out.read_text())['metrics']
    metrics = found['dit_pvvae']
    assert set(metrics) == {'flow/loss', *(f'flow/loss_q{i}' for i in range(1, 5))}
    parts = [metrics[f'flow/loss_q{i}'] for i in range(1, 5)]
    assert metrics['flow/loss'] == pytest.approx(sum(parts) / 4)
    assert found['dit_pvvae_cached'] == pytest.approx(metrics, rel=1e-4)


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (
            ['model.head.num_classes=101'],
            ValueError,
            r'have 2 classes, but the head has 101; set model\.head\.num_classes=2',
        ),
        (['train_dataloader.dataset.data_root=/no/such/place'], FileNotFoundError, 'is not a folder'),
        (['model.backbone_checkpoint=/no/such/pvvae_ucf101_decoder'], FileNotFoundError, r'configs/pvvae_ucf101_d'),
    ],
)
def test_bad_set_ups_fail_at_the_start(options, error, message, data, tmp_path):
    with pytest.raises(error, match=message):
        train('dit_pvvae', tmp_path, *loaders('0', '1'), *ucf101(data), *options)
    assert not list(tmp_path.glob('*.pth'))

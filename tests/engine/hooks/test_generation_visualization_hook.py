"""Samples are drawn from the averaged weights and do not change the training."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from pvvae_plugin import config_path
from pvvae_plugin.registry import HOOKS, MODELS
from pvvae_plugin.sampling import load_generator
from pvvae_plugin.visualization import draw_strip, to_uint8

HOOK = {'type': 'GenerationVisualizationHook', 'num_clips': 3, 'num_inference_steps': 2, 'guidance_scale': 2.0}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def vae(tmp_path_factory):
    """Return the demo's VAE with toy widths, and its checkpoint."""
    config = {**Config.fromfile(config_path('pvvae_demo.py')).model.backbone, '_scope_': 'pvvae_plugin'}
    config |= {'latent_channels': 4, 'encoder_widths': (8, 8, 8), 'decoder_widths': (8, 8, 8)}
    config |= {'strides': ((2, 1), (2, 1)), 'patch_size': 4}
    path = tmp_path_factory.mktemp('vae') / 'vae.pth'
    state = {f'backbone.{name}': tensor for name, tensor in MODELS.build(config).state_dict().items()}
    torch.save({'state_dict': state}, path)
    return config, str(path)


def configure(vae, work_dir, hook, validate=False):
    cfg = Config.fromfile(config_path('dit_demo.py'))
    head = {'type': 'LatentDiT', 'latent_channels': 4, 'num_classes': 7, 'depth': 2, 'hidden_size': 32, 'num_heads': 2}
    cfg.model.backbone, cfg.model.backbone_checkpoint, cfg.model.head = *vae, head
    cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.update(clip_len=9, size=32)
    cfg.train_cfg.update(max_iters=4, val_interval=2)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint.interval = 2
    cfg.custom_hooks = [
        {'type': 'FrozenBackboneHook'},
        {'type': 'LatentStatisticsHook', 'num_clips': 2},
        {'type': 'TrainedWeightsEMAHook', 'module': 'head', 'decay': 0.5},
        *([hook] if hook else []),
    ]
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    if validate:
        clips = {**cfg.train_dataloader.dataset, 'length': 2, 'test_mode': True}
        sampler = {'type': 'DefaultSampler', 'shuffle': False}
        cfg.val_dataloader = {'batch_size': 2, 'num_workers': 0, 'sampler': sampler, 'dataset': clips}
        cfg.val_evaluator, cfg.val_cfg = [{'type': 'FlowLoss'}], {}
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = work_dir.name
    return cfg


def train(vae, work_dir, hook, validate=False):
    """Train four iterations. Return the config and the last checkpoint."""
    cfg = configure(vae, work_dir, hook, validate)
    runner = Runner.from_cfg(cfg)
    runner.train()
    runner.visualizer.close()
    return cfg, torch.load(work_dir / 'iter_4.pth', weights_only=True)


@pytest.mark.parametrize('validate', [False, True])
def test_samples_are_those_of_the_averages_and_leave_no_trace(vae, tmp_path, validate):
    hook = HOOK if validate else {**HOOK, 'interval': 2}
    cfg, drawn = train(vae, tmp_path / f'drawn{validate}', hook, validate)
    _, plain = train(vae, tmp_path / f'plain{validate}', None, validate)
    for group in ('state_dict', 'raw_weights'):
        for name, tensor in plain[group].items():
            assert torch.equal(tensor, drawn[group][name]), f'{group}.{name}'
    moments = [p['optimizer']['head']['state'][0]['exp_avg'] for p in (plain, drawn)]
    assert torch.equal(*moments)

    root = tmp_path / f'drawn{validate}'
    assert {p.name for p in (root / 'vis').iterdir()} == {'iter_000002', 'iter_000004', 'latest.png'}
    shown = np.asarray(Image.open(root / 'vis' / 'iter_000004' / 'samples.png'))
    model = load_generator(cfg, str(root))  # the averages
    videos = dict(model.generate(3, 9, (32, 32), labels=[0, 1, 2], num_inference_steps=2, guidance_scale=2.0))
    captions = ['linear', 'bounce', 'rotate']
    assert (shown == draw_strip([to_uint8(videos[i]) for i in range(3)], captions)).all()
    raw = load_generator(cfg, str(root), raw_weights=True)
    others = dict(raw.generate(3, 9, (32, 32), labels=[0, 1, 2], num_inference_steps=2, guidance_scale=2.0))
    assert any(not torch.equal(others[i], videos[i]) for i in range(3))
    assert Image.open(root / 'vis' / 'iter_000004' / 'samples.gif').n_frames == 9
    assert (root / 'vis' / 'latest.png').read_bytes() == (root / 'vis/iter_000004/samples.png').read_bytes()


def test_a_run_without_validations_needs_an_interval(vae, tmp_path):
    with pytest.raises(ValueError, match='set its interval'):
        train(vae, tmp_path / 'none', HOOK)
    with pytest.raises(ValueError, match='interval must be at least 1, got 0'):
        HOOKS.build({**HOOK, 'interval': 0})


@pytest.mark.parametrize(
    ('hook', 'class_dropout', 'message'),
    [
        (HOOK, 0.0, r'GenerationVisualizationHook: guidance_scale=2\.0 .* class_dropout=0'),
        ({**HOOK, 'guidance_scale': 1e9}, 0.1, 'GenerationVisualizationHook: guidance_scale must be within'),
    ],
)
def test_sampling_that_cannot_be_is_refused_before_the_first_step(vae, tmp_path, hook, class_dropout, message):
    cfg = configure(vae, tmp_path / 'refused', {**hook, 'interval': 2})
    cfg.model.class_dropout = class_dropout
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(cfg).train()
    assert not list(tmp_path.rglob('*.pth'))


class Visualizer:
    _vis_backends = {}


class FakeRunner:
    """Minimal runner for hooks of a test loop."""

    def __init__(self, model, work_dir):
        self.model, self.work_dir, self.visualizer = model, str(work_dir), Visualizer()
        self.test_dataloader = type('Loader', (), {'dataset': None})


@pytest.mark.parametrize('num_classes', [None, 2])
def test_cached_latents_and_unconditional_heads_are_drawn_too(vae, tmp_path, num_classes):
    head = {
        'type': 'LatentDiT',
        'latent_channels': 4,
        'num_classes': num_classes,
        'depth': 2,
        'hidden_size': 32,
        'num_heads': 2,
    }
    config = {'type': 'LatentVideoGenerator', 'backbone': vae[0], 'backbone_checkpoint': None, 'head': head}
    model = MODELS.build(config).train()
    hook = HOOKS.build({**HOOK, 'guidance_scale': 2.0 if num_classes else 1.0})
    hook.after_test_iter(FakeRunner(model, tmp_path), 0, {'inputs': [torch.zeros(8, 2, 4, 8)]})
    assert model.training and not model.backbone.training
    gif = Image.open(tmp_path / 'vis' / 'test' / 'samples.gif')
    assert gif.n_frames >= 1
    strip = Image.open(tmp_path / 'vis' / 'test' / 'samples.png')
    assert strip.width > 5 * 32 * 6  # 5 frames of 16 x 32, enlarged sixfold
    hook.after_test_iter(FakeRunner(model, tmp_path / 'later'), 1, None)  # drawn once per loop
    assert not (tmp_path / 'later').exists()

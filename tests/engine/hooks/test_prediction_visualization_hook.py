import io

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import HOOKS, VISBACKENDS
from mmengine.runner import Runner as MMEngineRunner
from mmengine.visualization import Visualizer
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pvvae_plugin import config_path
from pvvae_plugin.engine import PredictionVisualizationHook
from pvvae_plugin.registry import DATASETS, MODELS
from pvvae_plugin.structures import VideoDataSample
from pvvae_plugin.visualization import VideoTensorboardVisBackend, draw_strip, to_uint8


def make_sample(seed, num_frames=5):
    generator = torch.Generator().manual_seed(seed)
    sample = VideoDataSample(metainfo={'temporal_ratio': 4, 'path': f'{seed}', 'label': None})
    sample.video = torch.rand(3, num_frames, 16, 16, generator=generator) * 2 - 1
    sample.reconstruction = sample.video * 0.9
    if num_frames > 1:
        sample.predictions = {1: sample.video * 0.5}
    return sample


class Runner:
    """Minimal runner for the hook."""

    def __init__(self, work_dir, backend=None, iteration=500):
        self.work_dir = str(work_dir)
        self._train_loop = object()
        self.iter = iteration
        self.visualizer = Visualizer()
        if backend is not None:
            self.visualizer._vis_backends = {'mine': backend}


def validate(hook, runner, batches):
    runner.val_dataloader = batches
    hook.before_val_epoch(runner)
    for i, batch in enumerate(batches):
        hook.after_val_iter(runner, i, None, batch)


def files_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


def test_writes_clips_of_each_validation_spread_over_it(tmp_path):
    hook = PredictionVisualizationHook(num_clips=3)
    batches = [[make_sample(0), make_sample(1)], [make_sample(2), make_sample(3)], [make_sample(4)]]
    validate(hook, Runner(tmp_path), batches)
    expected = [f'vis/iter_000500/clip_0{i}.{kind}' for i in range(3) for kind in ('gif', 'png')]
    assert files_below(tmp_path) == [*expected, 'vis/latest.png']
    first = (tmp_path / 'vis/iter_000500/clip_00.png').read_bytes()
    assert (tmp_path / 'vis/latest.png').read_bytes() == first

    validate(hook, Runner(tmp_path, iteration=1000), batches[1:])
    assert len(files_below(tmp_path / 'vis/iter_001000')) == 6
    second = (tmp_path / 'vis/latest.png').read_bytes()
    assert second == (tmp_path / 'vis/iter_001000/clip_00.png').read_bytes() != first
    assert Image.open(tmp_path / 'vis/iter_001000/clip_00.gif').n_frames == 5


def test_a_test_draws_into_its_own_folder(tmp_path):
    hook = PredictionVisualizationHook(num_clips=1, out_dir=str(tmp_path / 'shown'))
    runner = Runner(tmp_path / 'work')
    runner.test_dataloader = [None]
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, None, [make_sample(0)])
    assert files_below(tmp_path) == [f'shown/vis/{f}' for f in ('latest.png', 'test/clip_00.gif', 'test/clip_00.png')]


def test_stills_and_diverged_models_are_drawn_too(tmp_path):
    broken = make_sample(1)
    broken.reconstruction = torch.full_like(broken.video, float('nan'))
    validate(PredictionVisualizationHook(), Runner(tmp_path), [[make_sample(0, num_frames=1), broken]])
    assert len(files_below(tmp_path / 'vis/iter_000500')) == 4


def test_validation_without_a_training_loop(tmp_path):
    runner = Runner(tmp_path)
    runner._train_loop = {'type': 'not built'}
    validate(PredictionVisualizationHook(num_clips=1), runner, [[make_sample(0)]])
    assert (tmp_path / 'vis/iter_000000/clip_00.png').exists()


def test_other_ranks_draw_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group=None: 1)
    validate(PredictionVisualizationHook(), Runner(tmp_path), [[make_sample(0)]])
    assert files_below(tmp_path) == []


def test_tensorboard_gets_strip_and_animation(tmp_path):
    backend = VISBACKENDS.build(
        {'type': 'pvvae_plugin.VideoTensorboardVisBackend', 'save_dir': str(tmp_path / 'events')}
    )
    validate(PredictionVisualizationHook(num_clips=1), Runner(tmp_path, backend), [[make_sample(0)]])
    backend.close()
    events = EventAccumulator(str(tmp_path / 'events'))
    events.Reload()
    assert set(events.Tags()['images']) == {'vis/clip_00', 'vis_animated/clip_00'}
    (still,), (animated,) = events.Images('vis/clip_00'), events.Images('vis_animated/clip_00')
    assert still.step == animated.step == 500
    png = Image.open(tmp_path / 'vis/iter_000500/clip_00.png')
    assert (np.asarray(Image.open(io.BytesIO(still.encoded_image_string))) == np.asarray(png)).all()
    gif = Image.open(io.BytesIO(animated.encoded_image_string))
    assert gif.format == 'GIF' and gif.n_frames == 5 and gif.size == (animated.width, animated.height)


def test_backend_refuses_what_is_no_video(tmp_path):
    backend = VideoTensorboardVisBackend(str(tmp_path))
    with pytest.raises(ValueError, match='float32'):
        backend.add_video('x', np.zeros((2, 8, 8, 3), np.float32))
    backend.close()


def test_registered_for_configs():
    hook = HOOKS.build({'type': 'pvvae_plugin.PredictionVisualizationHook', 'num_clips': 2})
    assert isinstance(hook, PredictionVisualizationHook) and hook.num_clips == 2


def train(work_dir, hook, with_validation):
    """Train a tiny VAE for three iterations; return its last checkpoint and config."""
    cfg = Config.fromfile(config_path('pvvae_demo.py'))
    cfg.model.backbone.update(encoder_widths=(4, 4, 4), decoder_widths=(4, 4, 4), latent_channels=4)
    cfg.train_cfg = {'type': 'ClipTrainLoop', 'max_iters': 3, 'val_interval': 100}
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.val_dataloader.dataset.length = 6
    if not with_validation:
        cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    hooks = [{'type': 'TrainedWeightsEMAHook', 'decay': 0.5}]
    cfg.custom_hooks = [*hooks, hook] if hook else hooks
    cfg.visualizer = None
    cfg.param_scheduler = None
    cfg.work_dir, cfg.experiment_name = str(work_dir), work_dir.name
    runner = MMEngineRunner.from_cfg(cfg)
    runner.train()
    return cfg, torch.load(work_dir / 'iter_3.pth', weights_only=True)


@pytest.mark.parametrize('with_validation', [True, False])
def test_an_interval_draws_from_the_averages_and_leaves_no_trace(tmp_path, with_validation):
    hook = {'type': 'PredictionVisualizationHook', 'num_clips': 2, 'interval': 2}
    cfg, drawn = train(tmp_path / f'drawn{with_validation}', hook, with_validation)
    _, plain = train(tmp_path / f'plain{with_validation}', None, with_validation)
    for group in ('state_dict', 'raw_weights'):
        assert all(torch.equal(tensor, drawn[group][name]) for name, tensor in plain[group].items())
    folder = tmp_path / f'drawn{with_validation}' / 'vis'
    assert {path.name for path in folder.iterdir()} == {'iter_000002', 'iter_000003', 'latest.png'}
    assert len(files_below(folder / 'iter_000003')) == 4
    if not with_validation:
        return
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(drawn['state_dict'])  # the averages
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    data = model.data_preprocessor(pseudo_collate([dataset[3]]), False)
    with torch.no_grad():
        (sample,) = model(**data, mode='predict')
    expected = draw_strip(
        [to_uint8(clip) for clip in (sample.video, sample.reconstruction, *sample.predictions.values())],
        ['truth', 'reconstruction', 'from 1 frame', 'from 5 frames'],
        [None, None, 1, 5],
    )
    assert (np.asarray(Image.open(folder / 'iter_000003' / 'clip_01.png')) == expected).all()
    with pytest.raises(ValueError, match='interval must be at least 1, got 0'):
        PredictionVisualizationHook(interval=0)

"""Results of the metrics, including lists, pass through MMEngine's loops, log and TensorBoard."""

import json

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import Dataset

from pvvae_plugin.engine import PredictionVisualizationHook
from pvvae_plugin.evaluation import FuturePrediction, VideoReconstruction
from pvvae_plugin.visualization import VideoTensorboardVisBackend


class Clips(Dataset):
    def __init__(self, make_sample):
        self.make_sample = make_sample

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'inputs': torch.zeros(1), 'data_samples': self.make_sample(index)}


class Oracle(BaseModel):
    """VAE whose data samples contain predictions."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples, mode):
        return {'loss_zero': self.weight.sum()} if mode == 'loss' else data_samples


@pytest.fixture
def runner(make_sample, tmp_path):
    loader = {'dataset': Clips(make_sample), 'batch_size': 2, 'num_workers': 0}
    loader['sampler'] = {'type': 'DefaultSampler', 'shuffle': False}
    metrics = [VideoReconstruction(), FuturePrediction()]
    backend = VideoTensorboardVisBackend(str(tmp_path / 'events'))
    return Runner(
        model=Oracle(),
        work_dir=str(tmp_path),
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 2, 'val_interval': 2},
        val_cfg={},
        test_cfg={},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        val_evaluator=metrics,
        test_evaluator=metrics,
        default_hooks={
            'logger': {'type': 'LoggerHook', 'interval': 1, 'log_metric_by_epoch': False},
            'checkpoint': {
                'type': 'CheckpointHook',
                'interval': 2,
                'by_epoch': False,
                'save_best': 'recon/psnr',
                'rule': 'greater',
            },
        },
        custom_hooks=[PredictionVisualizationHook(num_clips=1)],
        log_processor={'type': 'pvvae_plugin.ShortLogProcessor', 'by_epoch': False},
        visualizer=Visualizer(name=str(tmp_path), vis_backends=[backend]),
        experiment_name=tmp_path.name,
    )


def test_train_and_test_survive_lists(runner, tmp_path):
    runner.train()
    metrics = runner.test()
    assert len(json.loads(json.dumps(metrics))['recon/psnr_per_frame']) == 5

    events = EventAccumulator(str(tmp_path / 'events'))
    events.Reload()
    assert {'recon/psnr', 'predict/k1_vs_repeat'} <= set(events.Tags()['scalars'])
    assert 'recon/psnr_per_frame' not in events.Tags()['scalars']
    assert 'vis_animated/clip_00' in events.Tags()['images']
    log = ''.join(p.read_text() for p in tmp_path.glob('*/*.log'))
    assert 'dropped groups' in log and 'psnr_per_frame' in log
    (dumped,) = tmp_path.glob('*/*.json')
    assert len(json.loads(dumped.read_text())['recon/ssim_per_frame']) == 5
    assert (tmp_path / 'vis/iter_000002/clip_00.png').exists() and (tmp_path / 'vis/test/clip_00.gif').exists()
    assert list(tmp_path.glob('best_recon_psnr*.pth'))

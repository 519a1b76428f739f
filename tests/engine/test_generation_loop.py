"""GenerationLoop: distribution of videos across processes, and checks before generation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from torch.utils.data import DataLoader

from pvvae_plugin.engine import GenerationLoop, generation_loop


class Clips(torch.utils.data.Dataset):
    metainfo: dict = {}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'inputs': torch.zeros(3, 5, 8, 8, dtype=torch.uint8)}


class Generator(torch.nn.Module):
    """Generator whose clips are filled with their index."""

    def __init__(self, num_classes):
        super().__init__()
        self.head = SimpleNamespace(null_label=num_classes)
        self.calls = []

    def clip_geometry(self, inputs):
        return inputs.shape[1], tuple(inputs.shape[2:])

    def generate(self, num, num_frames, size, indices, **options):
        self.calls.append({'num': num, 'num_frames': num_frames, 'size': size, 'indices': indices, **options})
        return ((i, torch.full((3, num_frames, *size), float(i))) for i in indices)


class Seen(BaseMetric):
    default_prefix = 'seen'

    def __init__(self):
        super().__init__()
        self.batches, self.prepared = [], None

    def prepare(self, num_frames, num_clips):
        assert not self.batches
        self.prepared = num_frames, num_clips

    def process(self, data_batch, data_samples):
        self.batches.append([(s['index'], s['label'], s['generated'].mean().item()) for s in data_samples])

    def evaluate(self, size):
        return {'size': size}

    def compute_metrics(self, results):
        raise NotImplementedError


def build(model, metric, **options):
    hooks = []
    runner = SimpleNamespace(
        model=model,
        visualizer=SimpleNamespace(dataset_meta=None),
        call_hook=lambda name, **_: hooks.append(name),
        hooks=hooks,
    )
    return GenerationLoop(runner, DataLoader(Clips()), Evaluator([metric]), **options)


@pytest.mark.parametrize('world_size', [1, 2, 3, 5])
@pytest.mark.parametrize('num_classes', [None, 3])
def test_each_video_is_made_once_whoever_shares(world_size, num_classes, monkeypatch):
    """7 videos in batches of 2 give four batches with a smaller last one, which no process count divides evenly."""
    made, batches = [], []
    for rank in range(world_size):
        monkeypatch.setattr(generation_loop, 'get_dist_info', lambda rank=rank: (rank, world_size))
        model, metric = Generator(num_classes), Seen()
        loop = build(
            model,
            metric,
            num_samples=7,
            batch_size=2,
            seed=4,
            sampling={'num_inference_steps': 3, 'guidance_scale': 2.0},
        )
        assert loop.run() == {'size': 7}
        assert metric.prepared == (5, 7)
        assert model.calls[0].items() >= {'num_inference_steps': 3, 'guidance_scale': 2.0, 'seed': 4}.items()
        assert (model.calls[0]['num_frames'], model.calls[0]['size']) == (5, (8, 8))
        made += [entry for batch in metric.batches for entry in batch]
        batches += [[index for index, *_ in batch] for batch in metric.batches]
        assert loop.runner.hooks[-2:] == ['after_test_epoch', 'after_test']
    assert sorted(batches) == [[0, 1], [2, 3], [4, 5], [6]]
    labels = [None if num_classes is None else i % 3 for i in range(7)]
    assert sorted(made) == [(i, labels[i], float(i)) for i in range(7)]


def test_what_cannot_be_is_refused():
    with pytest.raises(TypeError, match='Linear cannot generate: use TestLoop'):
        build(torch.nn.Linear(1, 1), Seen()).run()
    for name in ('num_samples', 'batch_size'):
        with pytest.raises(ValueError, match=f'test_cfg.{name} must be a positive integer, got 0'):
            build(Generator(None), Seen(), **{name: 0})

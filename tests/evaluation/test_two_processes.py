"""Metrics of 2 processes equal those of one, though the sampler pads 7 clips to 8."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from drawn_samples import build_sample
from mmengine.evaluator import Evaluator

from pvvae_plugin.evaluation import FuturePrediction, VideoReconstruction

NUM_CLIPS = 7


def samples_of(rank, world_size):
    per_rank = -(-NUM_CLIPS // world_size)
    indices = [i % NUM_CLIPS for i in range(rank, per_rank * world_size, world_size)]  # as mmengine's DefaultSampler
    extra = {2: {'substituted_path': 'broken.mp4'}}
    return [build_sample(i, num_frames=1 if i == 4 else 5, **extra.get(i, {})) for i in indices]


def evaluate(rank, world_size):
    evaluator = Evaluator([VideoReconstruction(), FuturePrediction()])
    for sample in samples_of(rank, world_size):
        evaluator.process([sample])
    return evaluator.evaluate(NUM_CLIPS)


def worker(rank, port, out):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    torch.save(evaluate(rank, 2), f'{out}/{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason='torch was built without distributed')
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, args=(port, str(tmp_path)), nprocs=2)
    alone = evaluate(0, 1)
    for rank in range(2):
        metrics = torch.load(tmp_path / f'{rank}.pt')
        assert metrics.keys() == alone.keys()
        for name, value in alone.items():
            assert metrics[name] == pytest.approx(value, rel=1e-6), name

"""Metrics of 2 processes equal those of one, though the sampler pads 7 clips to 8."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from drawn_samples import build_sample
from mmengine.evaluator import Evaluator
from tiny_extractors import Colours, Statistics

from pvvae_plugin.evaluation import FVD, KVD, FuturePrediction, VideoInceptionScore, VideoReconstruction
from pvvae_plugin.structures import VideoDataSample

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
    torch.save({**evaluate(rank, 2), **evaluate_sets(rank, 2, f'{out}/cache')}, f'{out}/{rank}.pt')
    dist.destroy_process_group()


def generated(rank, world_size):
    """23 videos in batches of 4, which processes take in turn: the last batch is short, and the shares differ."""
    batches = [range(start, min(start + 4, 23)) for start in range(0, 23, 4)]
    for batch in batches[rank::world_size]:
        samples = []
        for index in batch:
            sample = VideoDataSample(metainfo={'index': index})
            sample.generated = build_sample(index).video
            samples.append(sample)
        yield samples


def evaluate_sets(rank, world_size, cache_dir):
    protocol = {'base': 'paper', 'num_frames': 5, 'num_samples': 23, 'inception_splits': 2}
    data = {'type': 'SyntheticVideoDataset', 'length': 51, 'size': 12}
    reference = {'dataset': data, 'cache_dir': cache_dir, 'num_workers': 0, 'batch_size': 3}
    extractor = Statistics()
    metrics = [FVD(extractor, protocol, reference), KVD(extractor, protocol, reference)]
    evaluator = Evaluator([*metrics, VideoInceptionScore(Colours(), protocol)])
    for samples in generated(rank, world_size):
        evaluator.process(samples)
    found = evaluator.evaluate(23)
    # clips of a sampler that pads 7 to 8, paired with their reconstructions
    evaluator = Evaluator([FVD(Statistics(), protocol), KVD(Statistics(), protocol)])
    for sample in samples_of(rank, world_size):
        if sample.video.shape[1] == 1:  # too short for these metrics
            sample.set_metainfo({'substituted_path': 'short.mp4'})
        evaluator.process([sample])
    return {**found, **evaluator.evaluate(NUM_CLIPS)}


@pytest.mark.skipif(not dist.is_available(), reason='torch was built without distributed')
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, args=(port, str(tmp_path)), nprocs=2)
    alone = {**evaluate(0, 1), **evaluate_sets(0, 1, None)}
    assert {'gen/FVD5_23', 'gen/KVD5_23', 'gen/IS5_23', 'recon/rFVD5_5'} <= alone.keys()
    for rank in range(2):
        metrics = torch.load(tmp_path / f'{rank}.pt')
        assert metrics.keys() == alone.keys()
        for name, value in alone.items():
            assert metrics[name] == pytest.approx(value, rel=1e-6), name

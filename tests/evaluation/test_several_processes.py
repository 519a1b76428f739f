"""Metrics of 2 and 3 processes equal those of one, though the sampler pads 7 clips to 8 or 9."""

import socket

import pytest
import torch
import torch.distributed as dist
from drawn_samples import build_sample
from mmengine.evaluator import Evaluator
from parallel_runs import run_in_processes
from tiny_extractors import Colors, Statistics

from pvvae_plugin.evaluation import (
    FVD,
    KVD,
    FlowLoss,
    FuturePrediction,
    LatentTemporalDistance,
    ProxyFVD,
    VideoInceptionScore,
    VideoReconstruction,
)
from pvvae_plugin.registry import EXTRACTORS
from pvvae_plugin.structures import VideoDataSample

NUM_CLIPS = 7


def samples_of(rank, world_size):
    per_rank = -(-NUM_CLIPS // world_size)
    indices = [i % NUM_CLIPS for i in range(rank, per_rank * world_size, world_size)]  # as mmengine's DefaultSampler
    extra = {2: {'substituted_path': 'broken.mp4'}}
    samples = [build_sample(i, num_frames=1 if i == 4 else 5, **extra.get(i, {})) for i in indices]
    for i, sample in zip(indices, samples, strict=True):
        generator = torch.Generator().manual_seed(100 + i)
        sample.flow_losses = torch.rand(4, generator=generator)
        sample.latents = (1 + i) * torch.randn(2, 1 if i == 4 else 3, 2, 2, generator=generator)
    return samples


def evaluate(rank, world_size):
    evaluator = Evaluator([VideoReconstruction(), FuturePrediction(), FlowLoss(), LatentTemporalDistance()])
    for sample in samples_of(rank, world_size):
        evaluator.process([sample])
    return evaluator.evaluate(NUM_CLIPS)


def worker(rank, world_size, port, out):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=world_size)
    torch.save({**evaluate(rank, world_size), **evaluate_sets(rank, world_size, f'{out}/cache')}, f'{out}/{rank}.pt')
    with pytest.raises(ValueError, match='FVD needs at least 2 clips in each set, got 1 and 1'):  # in every process
        evaluate_one_pair(rank)
    dist.destroy_process_group()


def generated(rank, world_size):
    """23 videos in batches of 4, dealt to the processes in turn; the last batch is short and the shares differ."""
    batches = [range(start, min(start + 4, 23)) for start in range(0, 23, 4)]
    for batch in batches[rank::world_size]:
        samples = []
        for index in batch:
            sample = VideoDataSample(metainfo={'index': index})
            sample.generated = build_sample(index).video
            samples.append(sample)
        yield samples


class SizedStatistics(Statistics):
    """Stand-in for a network that resizes its frames."""

    def __init__(self, input_size):
        super().__init__()


def proxy(protocol, reference):
    """ProxyFVD with quick extractors in place of its networks."""
    EXTRACTORS.get('C3D')  # fills the registry
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXTRACTORS.module_dict, 'EfficientNetLite0', SizedStatistics)
        patch.setitem(EXTRACTORS.module_dict, 'TransNetV2', Colors)
        return ProxyFVD(protocol, reference)


def evaluate_sets(rank, world_size, cache_dir):
    protocol = {'base': 'paper', 'num_frames': 5, 'num_samples': 23, 'inception_splits': 2}
    data = {'type': 'SyntheticVideoDataset', 'length': 51, 'size': 12}
    reference = {'dataset': data, 'cache_dir': cache_dir, 'num_workers': 0, 'batch_size': 3}
    extractor = Statistics()
    metrics = [FVD(extractor, protocol, reference), KVD(extractor, protocol, reference), proxy(protocol, reference)]
    evaluator = Evaluator([*metrics, VideoInceptionScore(Colors(), protocol)])
    for samples in generated(rank, world_size):
        evaluator.process(samples)
    found = evaluator.evaluate(23)
    # clips of a sampler that pads 7 to 8, paired with their reconstructions
    evaluator = Evaluator([FVD(Statistics(), protocol), KVD(Statistics(), protocol), proxy(protocol, None)])
    for sample in samples_of(rank, world_size):
        if sample.video.shape[1] == 1:  # too short for these metrics
            sample.set_metainfo({'substituted_path': 'short.mp4'})
        evaluator.process([sample])
    return {**found, **evaluator.evaluate(NUM_CLIPS)}


def evaluate_one_pair(rank):
    evaluator = Evaluator([FVD(Statistics(), {'base': 'paper', 'num_frames': 5})])
    if rank == 0:
        evaluator.process([build_sample(0)])
    evaluator.evaluate(1)


@pytest.mark.skipif(not dist.is_available(), reason='torch was built without distributed')
@pytest.mark.parametrize('world_size', [2, 3])
def test_several_processes_equal_one(world_size, tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    run_in_processes(worker, (world_size, port, str(tmp_path)), world_size)
    alone = {**evaluate(0, 1), **evaluate_sets(0, 1, None)}
    assert {'gen/FVD5_23', 'gen/KVD5_23', 'gen/IS5_23', 'recon/rFVD5_5', 'flow/loss', 'ltd/i2'} <= alone.keys()
    assert {'gen/proxy_appearance5_23', 'recon/rproxy_time5_5'} <= alone.keys()
    for rank in range(world_size):
        metrics = torch.load(tmp_path / f'{rank}.pt')
        assert metrics.keys() == alone.keys()
        for name, value in alone.items():
            assert metrics[name] == pytest.approx(value, rel=1e-6), name

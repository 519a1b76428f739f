"""Flow loss of held-out clips: means, skipped clips, and several processes."""

import socket

import pytest
import torch
import torch.distributed as dist
from mmengine.evaluator import Evaluator
from parallel_runs import run_in_processes

from pvvae_plugin.evaluation import FlowLoss
from pvvae_plugin.structures import VideoDataSample

NUM_CLIPS = 7
LOSSES = torch.rand(NUM_CLIPS, 4, generator=torch.Generator().manual_seed(0))
BROKEN = 2


def sample(index):
    metainfo = {'path': f'{index}'}
    if index == BROKEN:
        metainfo['substituted_path'] = 'broken.mp4'
    sample = VideoDataSample(metainfo=metainfo)
    sample.flow_losses = LOSSES[index]
    return sample


def evaluate(rank, world_size):
    """Shard clips like mmengine's DefaultSampler: the last round is padded with the first clips."""
    evaluator = Evaluator(FlowLoss())
    per_rank = -(-NUM_CLIPS // world_size)
    mine = [sample(i % NUM_CLIPS) for i in range(rank, per_rank * world_size, world_size)]
    for start in range(0, len(mine), 3):  # an uneven last batch
        evaluator.process(mine[start : start + 3])
    return evaluator.evaluate(NUM_CLIPS)


def expected():
    kept = torch.cat([LOSSES[:BROKEN], LOSSES[BROKEN + 1 :]]).double()
    parts = {f'flow/loss_q{q + 1}': kept[:, q].mean().item() for q in range(4)}
    return {'flow/loss': kept.mean().item(), **parts}


def worker(rank, port, out):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    torch.save(evaluate(rank, 2), f'{out}/{rank}.pt')
    dist.destroy_process_group()


def test_means_over_clips_and_parts_without_substitutes(log_lines):
    assert evaluate(0, 1) == pytest.approx(expected())
    assert any('skipped 1 of 7 clips' in line for line in log_lines)


def test_nothing_to_average_gives_no_numbers():
    evaluator = Evaluator(FlowLoss())
    evaluator.process([sample(BROKEN)])
    assert evaluator.evaluate(1) == {}


@pytest.mark.skipif(not dist.is_available(), reason='torch was built without distributed')
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    run_in_processes(worker, (port, str(tmp_path)), 2)
    for rank in range(2):
        assert torch.load(tmp_path / f'{rank}.pt') == pytest.approx(expected())

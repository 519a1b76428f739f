from itertools import islice

import pytest
import torch
from mmengine.runner import Runner

from pvvae_plugin.datasets import InfiniteClipSampler, MultiResolutionBatchSampler

RESOLUTIONS = [{'size': 16, 'batch_size': 6}, {'size': 32, 'batch_size': 2, 'weight': 3.0}]


def described(indices):
    return [(int(index), index.draw_key, index.size) for index in indices]


def take(sampler, num):
    return described(islice(sampler, num))


def batches(sampler, num):
    return [described(batch) for batch in islice(sampler, num)]


@pytest.fixture
def on_rank(monkeypatch):
    def build(rank, world_size, **kwargs):
        monkeypatch.setattr('pvvae_plugin.datasets.samplers.get_dist_info', lambda: (rank, world_size))
        return InfiniteClipSampler(range(7), **kwargs)

    return build


def test_each_pass_is_a_new_order_of_everything(on_rank):
    stream = take(on_rank(0, 1, seed=3), 21)
    passes = [[index for index, *_ in stream[i : i + 7]] for i in (0, 7, 14)]
    assert all(sorted(order) == list(range(7)) for order in passes)
    assert passes[0] != passes[1]
    assert len({key for _, key, _ in stream}) == 21
    assert stream == take(on_rank(0, 1, seed=3), 21)
    assert stream != take(on_rank(0, 1, seed=4), 21)
    assert [index for index, *_ in take(on_rank(0, 1, seed=3, shuffle=False), 9)] == [0, 1, 2, 3, 4, 5, 6, 0, 1]


@pytest.mark.parametrize('world_size', [2, 3])
def test_ranks_together_are_one_process(on_rank, world_size):
    whole = take(on_rank(0, 1, seed=0), 12 * world_size)
    parts = [take(on_rank(rank, world_size, seed=0), 12) for rank in range(world_size)]
    assert [entry for together in zip(*parts, strict=True) for entry in together] == whole


def test_advance_equals_skipping(on_rank):
    sampler = on_rank(1, 2, seed=0)
    skipped = take(sampler, 30)[17:]
    sampler.advance(17 * 2)  # of both processes
    assert take(sampler, 13) == skipped


def test_another_number_of_processes_goes_on_where_the_others_stopped(on_rank):
    stream = take(on_rank(0, 1, seed=0), 40)
    parts = []
    for rank in range(3):
        sampler = on_rank(rank, 3, seed=0)
        sampler.advance(10)
        parts.append(take(sampler, 10))
    assert [entry for together in zip(*parts, strict=True) for entry in together] == stream[10:]


def test_empty_data_set():
    with pytest.raises(ValueError, match='at least one clip'):
        InfiniteClipSampler([], seed=0)


def test_without_a_seed_one_is_drawn():
    assert isinstance(InfiniteClipSampler(range(3)).seed, int)


def test_multi_resolution(on_rank):
    sampler = MultiResolutionBatchSampler(on_rank(0, 1, seed=0), batch_size=1, resolutions=RESOLUTIONS)
    found = batches(sampler, 400)
    for batch in found:
        sizes = {size for *_, size in batch}
        assert len(sizes) == 1
        assert len(batch) == {16: 6, 32: 2}[sizes.pop()]
    share = sum(batch[0][2] == 32 for batch in found) / 400
    assert abs(share - 0.75) < 0.1
    # No clip lost between batches.
    flat = [entry[:2] for batch in found for entry in batch]
    assert flat == [entry[:2] for entry in take(on_rank(0, 1, seed=0), len(flat))]


def test_multi_resolution_is_alike_on_ranks_and_resumes(on_rank):
    found = []
    for rank in range(2):
        sampler = MultiResolutionBatchSampler(on_rank(rank, 2, seed=0), batch_size=1, resolutions=RESOLUTIONS)
        found.append(batches(sampler, 50))
        sampler.advance(20)
        assert batches(sampler, 30) == found[-1][20:]
    assert [batch[0][2] for batch in found[0]] == [batch[0][2] for batch in found[1]]
    assert found[0] != found[1]


@pytest.mark.parametrize('resolution', [{'batch_size': 2}, {'size': 0}, {'size': 8, 'weight': 0}, {'size': 8, 'n': 1}])
def test_multi_resolution_refuses(on_rank, resolution):
    with pytest.raises(ValueError, match='a resolution must be'):
        MultiResolutionBatchSampler(on_rank(0, 1, seed=0), batch_size=2, resolutions=[resolution])


def test_multi_resolution_needs_our_sampler():
    with pytest.raises(TypeError, match='InfiniteClipSampler'):
        MultiResolutionBatchSampler(torch.utils.data.SequentialSampler(range(3)), 2, RESOLUTIONS)


def test_runner_builds_both():
    dataset = {
        'type': 'SyntheticVideoDataset',
        'length': 20,
        'clip_len': 1,
        'size': 40,
        'pipeline': [
            {'type': 'ResizeClip', 'size': 8},
            {'type': 'RandomCropClip', 'size': 8},
            {'type': 'PackClip'},
        ],
    }
    config = {'batch_size': 3, 'num_workers': 0, 'sampler': {'type': 'InfiniteClipSampler'}, 'dataset': dataset}
    loader = Runner.build_dataloader(config, seed=5)
    assert loader.sampler.seed == 5
    assert len(loader) == 7
    assert [tuple(clip.shape) for clip in next(iter(loader))['inputs']] == [(3, 1, 8, 8)] * 3

    resolutions = [{'size': 16}, {'size': 24, 'batch_size': 2}]
    config['batch_sampler'] = {'type': 'MultiResolutionBatchSampler', 'resolutions': resolutions}
    loader = Runner.build_dataloader(config, seed=5)
    shapes = [{tuple(clip.shape) for clip in batch['inputs']} for batch in islice(loader, 20)]
    assert all(len(shape) == 1 for shape in shapes)
    assert set().union(*shapes) == {(3, 1, 16, 16), (3, 1, 24, 24)}
    assert {len(batch['inputs']) for batch in islice(loader, 20)} == {2, 3}

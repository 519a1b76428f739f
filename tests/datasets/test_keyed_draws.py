"""Dropped groups through a real data loader: uniform, new in every epoch, independent of the workers."""

import pytest
from mmengine.dataset import pseudo_collate
from mmengine.dataset.utils import worker_init_fn
from torch.utils.data import DataLoader

from pvvae_plugin.datasets import InfiniteClipSampler, SyntheticVideoDataset

LENGTH = 400
CHI_SQUARE_4_DOF = 18.47  # exceeded once in 1,000 times by a uniform distribution


def make_dataset():
    pipeline = [{'type': 'FutureDropSampler', 'temporal_ratio': 4}, {'type': 'PackClip'}]
    return SyntheticVideoDataset(length=LENGTH, clip_len=17, size=8, pipeline=pipeline)


def init_workers_like_mmengine(worker_id):
    worker_init_fn(worker_id, num_workers=2, rank=0, seed=0)


def draws(loader, epochs=2):
    """Path -> dropped groups, one dict an epoch."""
    result = [{} for _ in range(epochs)]
    iterator = iter(loader)
    for epoch in result:
        while len(epoch) < LENGTH:
            try:
                batch = next(iterator)
            except StopIteration:
                iterator = iter(loader)
                continue
            epoch.update({sample.path: 5 - sum(sample.observed_groups) for sample in batch['data_samples']})
    return result


def check_uniform_and_new(first, second):
    counts = [0] * 5
    for dropped in [*first.values(), *second.values()]:
        counts[dropped] += 1
    expected = 2 * LENGTH / 5
    assert sum((count - expected) ** 2 / expected for count in counts) < CHI_SQUARE_4_DOF, counts
    same = sum(first[path] == second[path] for path in first)
    assert abs(same - LENGTH / 5) < 5 * (LENGTH * 0.2 * 0.8) ** 0.5, f'{same} of {LENGTH} repeat the epoch before'


@pytest.mark.parametrize('persistent', [False, True])
def test_plain_indices(persistent):
    loader = DataLoader(
        make_dataset(),
        batch_size=20,
        shuffle=True,
        num_workers=2,
        persistent_workers=persistent,
        collate_fn=pseudo_collate,
        worker_init_fn=init_workers_like_mmengine,
    )
    check_uniform_and_new(*draws(loader))


def test_clip_indices_do_not_depend_on_workers():
    found = []
    for num_workers in (2, 0):
        dataset = make_dataset()
        loader = DataLoader(
            dataset,
            batch_size=20,
            sampler=InfiniteClipSampler(dataset, seed=0),
            num_workers=num_workers,
            collate_fn=pseudo_collate,
        )
        found.append(draws(loader))
    check_uniform_and_new(*found[0])
    assert found[0] == found[1]

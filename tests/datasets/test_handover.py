"""Clips in shared memory: what arrives is what was sent, and the worker need not move it again."""

import os

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin.datasets.transforms.handover import share_with_main_process


class Counting(Dataset):
    """Tensors, and whether they lie in shared memory before the worker sends them."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        tensor = share_with_main_process(torch.full((3, 5, 7), index, dtype=torch.uint8))
        return tensor, tensor.is_shared()


def test_what_arrives_is_what_was_sent():
    loader = DataLoader(Counting(), batch_size=2, num_workers=2, collate_fn=list, persistent_workers=True)
    open_files = None
    for _ in range(3):
        samples = [sample for batch in loader for sample in batch]
        assert all(shared for _, shared in samples) == hasattr(os, 'memfd_create')
        for index, (tensor, _) in enumerate(samples):
            assert tensor.shape == (3, 5, 7) and tensor.is_contiguous() and (tensor == index).all()
            tensor += 1  # the receiver may write
        assert (samples[0][0] == 1).all() and (samples[1][0] == 2).all()
        del samples, tensor
        if os.path.isdir('/proc/self/fd'):
            assert open_files in (None, len(os.listdir('/proc/self/fd')))  # nothing is left open
            open_files = len(os.listdir('/proc/self/fd'))


def test_nothing_is_shared_outside_workers():
    tensor = torch.arange(6)
    assert share_with_main_process(tensor) is tensor and not tensor.is_shared()


@pytest.mark.skipif(not hasattr(os, 'memfd_create'), reason='this system has no files in memory')
def test_other_types_and_what_cannot_be_shared_so(monkeypatch):
    monkeypatch.setattr('pvvae_plugin.datasets.transforms.handover.get_worker_info', lambda: 'a worker')
    for tensor in (torch.randn(2, 3), torch.arange(5), torch.tensor([True, False])):
        shared = share_with_main_process(tensor)
        assert shared.is_shared() and shared.dtype == tensor.dtype and torch.equal(shared, tensor)
    empty = torch.zeros(0, 3)
    assert share_with_main_process(empty) is empty
    strategy = 'pvvae_plugin.datasets.transforms.handover.get_sharing_strategy'
    monkeypatch.setattr(strategy, lambda: 'file_system')
    assert share_with_main_process(tensor) is tensor

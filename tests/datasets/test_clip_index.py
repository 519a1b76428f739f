import pickle

from mmengine.dataset import ConcatDataset, RepeatDataset
from torch.utils.data import DataLoader

from pvvae_plugin.datasets import ClipIndex, SyntheticVideoDataset


def test_is_an_int_that_survives_pickling():
    index = ClipIndex(3, draw_key=2**62 + 1, size=64)
    assert index == 3
    assert [10, 11, 12, 13][index] == 13
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(index, protocol))
        assert type(copy) is ClipIndex
        assert (copy, copy.draw_key, copy.size) == (3, 2**62 + 1, 64)


def test_wrapper_data_sets_hand_the_key_on():
    parts = [SyntheticVideoDataset(length=4, clip_len=1, size=8, pipeline=[{'type': 'PackClip'}]) for _ in range(2)]
    for wrapper in (ConcatDataset(parts), RepeatDataset(parts[0], times=2)):
        sample = wrapper[ClipIndex(6, draw_key=77)]
        assert sample['data_samples'].draw_key == 77
        assert sample['data_samples'].path == parts[0].get_data_info(2)['path']


def test_worker_processes_get_it_whole():
    dataset = SyntheticVideoDataset(length=4, clip_len=1, size=8, pipeline=[{'type': 'PackClip'}])
    indices = [ClipIndex(i, draw_key=100 + i) for i in range(4)]
    loader = DataLoader(dataset, sampler=indices, batch_size=None, num_workers=1)
    assert [sample['data_samples'].draw_key for sample in loader] == [100, 101, 102, 103]

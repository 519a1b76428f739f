"""Clips that cannot be read are counted, through workers, processes and resumes; a run of mostly bad data ends."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object
from mmengine.logging import MessageHub, MMLogger
from torch.utils.data import DataLoader

from pvvae_plugin.datasets import ClipDataset, ClipError, ClipIndex, InfiniteClipSampler, NoReadableClipError, PackClip
from pvvae_plugin.registry import HOOKS


class Numbered(ClipDataset):
    """Clips of which some cannot be read."""

    def __init__(self, length=10, bad=(), pipeline=None, **kwargs):
        self.length, self.bad = length, set(bad)
        super().__init__(clip_len=2, pipeline=pipeline or [PackClip()], **kwargs)

    def load_data_list(self):
        return [{'path': f'clip{i}', 'label': i} for i in range(self.length)]

    def load_clip(self, info, rng):
        if info['label'] in self.bad:
            raise ClipError(info['path'], 'broken on purpose')
        return np.full((2, 4, 4, 3), info['label'], np.uint8)


def batches(dataset, num_batches, workers=2, start=0):
    sampler = InfiniteClipSampler(dataset, seed=0)
    sampler.advance(start * 4)
    loader = iter(DataLoader(dataset, 4, sampler=sampler, num_workers=workers, collate_fn=pseudo_collate))
    return [next(loader) for _ in range(num_batches)]


@pytest.fixture
def runner(tmp_path):
    lines = []
    logger = SimpleNamespace(warning=lines.append, info=lines.append)
    hub = MessageHub.get_instance('skipped')
    return SimpleNamespace(iter=0, max_iters=100, work_dir=str(tmp_path), logger=logger, message_hub=hub, lines=lines)


def train(hook, runner, data):
    for batch in data:
        hook.after_train_iter(runner, runner.iter, batch, {})
        runner.iter += 1


def expected_counts(data):
    """By another way: from the packed samples themselves."""
    samples = [sample for batch in data for sample in batch['data_samples']]
    failures = [failure for sample in samples for failure in sample.metainfo.get('skipped_clips', [])]
    files = {path: {'count': [p for p, _ in failures].count(path), 'reason': reason} for path, reason in failures}
    replaced = sum('substituted_path' in sample for sample in samples)
    return {'requested': len(samples), 'skipped': replaced, 'files': files, 'more': 0}


def test_a_sample_names_all_that_failed_in_its_place():
    dataset = Numbered(length=5, bad=[0, 1, 2, 3])
    meta = dataset[ClipIndex(2, draw_key=7)]['data_samples'].metainfo
    assert meta['path'] == 'clip4' and meta['substituted_path'] == 'clip2'
    paths = [path for path, _ in meta['skipped_clips']]
    assert paths[0] == 'clip2' and len(set(paths)) == len(paths) and 'clip4' not in paths
    assert {reason for _, reason in meta['skipped_clips']} == {'broken on purpose'}
    assert 'skipped_clips' not in dataset[4]['data_samples'].metainfo


def test_counts_survive_workers_checkpoints_and_resumes(runner, tmp_path):
    dataset = Numbered(length=10, bad=[2, 7])
    hook = HOOKS.build({'type': 'SkippedClipsHook', 'interval': 10})
    hook.before_train(runner)
    whole = batches(dataset, 20)
    assert expected_counts(whole)['skipped'] == 16  # two of ten, in each of eight passes
    train(hook, runner, whole[:7])
    state = json.loads(json.dumps(runner.message_hub.state_dict()['runtime_info']['skipped_clips']))
    assert state == expected_counts(whole[:7])

    # The checkpoint of iteration 7 in another process, with another number of workers.
    MessageHub._instance_dict.clear()
    runner.message_hub = MessageHub.get_instance('resumed')
    runner.message_hub.update_info('skipped_clips', state)
    hook = HOOKS.build({'type': 'SkippedClipsHook', 'interval': 10})
    hook.before_train(runner)
    train(hook, runner, batches(dataset, 13, workers=0, start=7))
    hook.after_train(runner)
    written = json.loads((tmp_path / 'skipped_clips.json').read_text())
    assert written == runner.message_hub.get_info('skipped_clips') == expected_counts(whole)
    assert '16 of 80 clips (20.00%)' in runner.lines[-1] and 'clip7: broken on purpose' in runner.lines[-1]
    assert not list(tmp_path.glob('.*'))


def test_nothing_is_logged_where_nothing_is_skipped(runner, tmp_path):
    hook = HOOKS.build({'type': 'SkippedClipsHook', 'interval': 2})
    hook.before_train(runner)
    train(hook, runner, batches(Numbered(), 6))
    hook.after_train(runner)
    assert runner.lines == []
    assert json.loads((tmp_path / 'skipped_clips.json').read_text())['requested'] == 24


def test_a_run_of_mostly_bad_data_ends(runner):
    hook = HOOKS.build({'type': 'SkippedClipsHook', 'min_clips': 40, 'max_share': 0.5})
    hook.before_train(runner)
    with pytest.raises(NoReadableClipError, match=r'of 40 clips .*max_share=0.5') as error:
        train(hook, runner, batches(Numbered(bad=range(6)), 20))
    assert runner.iter == 9  # the tenth batch of four
    assert 'clip5: broken on purpose' in str(error.value) and 'verify_dataset' in str(error.value)
    assert runner.message_hub.get_info('skipped_clips')['requested'] == 40


def test_a_part_of_the_data_may_be_bad(runner):
    hook = HOOKS.build({'type': 'SkippedClipsHook', 'min_clips': 40, 'max_share': 0.5})
    hook.before_train(runner)
    train(hook, runner, batches(Numbered(bad=range(4)), 20))
    assert runner.message_hub.get_info('skipped_clips')['skipped'] == 32


def sum_up(parts):
    """Of processes whose only bad clip is the same."""
    count = sum(part['files'].get('clip3', {'count': 0})['count'] for part in parts)
    files = {'clip3': {'count': count, 'reason': 'broken on purpose'}}
    return {**{name: sum(part[name] for part in parts) for name in ('requested', 'skipped', 'more')}, 'files': files}


def _two_processes(rank, port, folder):
    import torch.distributed as dist

    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    hub = MessageHub.get_instance(f'rank{rank}')
    run = SimpleNamespace(iter=0, max_iters=12, work_dir=folder, logger=MMLogger('x'), message_hub=hub)
    hook = HOOKS.build({'type': 'SkippedClipsHook', 'interval': 100})
    hook.before_train(run)
    data = batches(Numbered(bad=[3]), 12, workers=0)
    at_five, at_end = (sum_up(all_gather_object(expected_counts(data[:count]))) for count in (5, 12))
    for number, batch in enumerate(data):
        hook.after_train_iter(run, number, batch, {})
        run.iter += 1
        if run.iter == 5:
            hook.gather(run)  # as AtomicCheckpointHook does before it writes
            assert hub.get_info('skipped_clips') == at_five
    hook.after_train(run)
    assert hub.get_info('skipped_clips') == at_end
    dist.destroy_process_group()


def test_processes_add_up(tmp_path):
    import socket

    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(_two_processes, (port, str(tmp_path)), nprocs=2, start_method='fork')
    assert json.loads((tmp_path / 'skipped_clips.json').read_text())['requested'] == 96


def draw_globally(results):
    """As a user's transform, or mmcv's, may."""
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_global_generators_follow_the_key():
    dataset = Numbered(pipeline=[draw_globally], bad=[2])
    runs = [sum(batches_of_draws(dataset, workers, 6), []) for workers in (0, 1, 3)]
    assert runs[0] == runs[1] == runs[2]
    assert sum(batches_of_draws(dataset, 2, 2, start=4), []) == runs[0][16:]
    flat = [value for draws in runs[0] for value in draws]
    assert len(set(flat)) == len(flat)


def batches_of_draws(dataset, workers, count, start=0):
    sampler = InfiniteClipSampler(dataset, seed=0)
    sampler.advance(start * 4)
    loader = iter(DataLoader(dataset, 4, sampler=sampler, num_workers=workers, collate_fn=list))
    return [next(loader) for _ in range(count)]


def test_plain_indices_leave_the_global_generators_alone():
    dataset = Numbered(pipeline=[draw_globally], test_mode=True)
    random.seed(5)
    np.random.seed(5)
    expected = [(random.random(), np.random.rand()) for _ in range(3)]
    random.seed(5)
    np.random.seed(5)
    assert [dataset[0][:2] for _ in range(3)] == expected

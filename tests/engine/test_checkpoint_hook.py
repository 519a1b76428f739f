"""Checkpoints are complete or absent, and one always exists."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper

from pvvae_plugin.engine.hooks import checkpoint_hook
from pvvae_plugin.files import lock_folder
from pvvae_plugin.models.checkpoints import last_checkpoint
from pvvae_plugin.registry import HOOKS


class Run:
    """Minimal runner for the hook. Writes at the iterations in ``fail`` raise its errors."""

    def __init__(self, work_dir: Path, max_iters: int = 100, fail: dict[int, OSError] | None = None, counts: int = 1):
        self.work_dir = str(work_dir)
        self.model = torch.nn.Linear(2, 2)
        self.optim_wrapper = OptimWrapper(torch.optim.SGD(self.model.parameters(), lr=0.1), accumulative_counts=counts)
        self.message_hub = MessageHub.get_current_instance()
        self.iter, self.epoch, self.max_iters, self.hooks = 0, 0, max_iters, []
        self.fail = fail or {}
        self.log: list[str] = []
        self.there: list[list[str]] = []  # existing checkpoints during each write
        self.logger = SimpleNamespace(info=lambda _: None, warning=self.log.append, error=self.log.append)

    def save_checkpoint(self, out_dir, name, meta, **_):
        path = Path(out_dir) / name
        self.there.append(sorted(p.name for p in path.parent.glob('*.pth')))
        torch.save({'state_dict': self.model.state_dict(), 'meta': meta}, path)
        if error := self.fail.get(meta['iter']):
            path.write_bytes(path.read_bytes()[:100])
            raise error

    def train(self, hook, iterations: int) -> None:
        hook.before_train(self)
        for self.iter in range(iterations):
            hook.after_train_iter(self, self.iter)
        hook.after_run(self)


def make(**options):
    return HOOKS.build({'type': 'AtomicCheckpointHook', 'interval': 2, 'save_last': False, **options})


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != '.lock')


def test_the_old_one_goes_when_the_new_one_is_there(tmp_path):
    run = Run(tmp_path)
    run.train(make(max_keep_ckpts=1), 6)
    assert run.there == [[], ['iter_2.pth'], ['iter_4.pth']]
    assert names(tmp_path) == ['iter_6.pth', 'last_checkpoint']
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / 'iter_6.pth')


def test_what_a_kill_left_is_tidied_up(tmp_path):
    """A kill leaves a partial file and an old checkpoint, which is still on the list of the new one."""
    (tmp_path / 'iter_4.pth.writing').write_bytes(b'half')
    (tmp_path / 'iter_1.pth').touch()
    (tmp_path / 'iter_3.pth').touch()
    run = Run(tmp_path)
    run.message_hub.update_info('keep_ckpt_ids', [1, 3])
    run.train(make(max_keep_ckpts=1), 0)
    assert names(tmp_path) == ['iter_3.pth']


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_keeps_what_is_there_and_is_tried_again(tmp_path):
    run = Run(tmp_path, fail={4: full()})
    run.train(make(max_keep_ckpts=1), 5)
    assert names(tmp_path) == ['iter_2.pth', 'last_checkpoint']
    assert 'iteration 4 could not be written: No space left on device' in run.log[0]
    assert f'the last complete checkpoint is {tmp_path / "iter_2.pth"}' in run.log[0]
    assert 'next attempt is at iteration 14' in run.log[0]
    assert len(run.log) == 1
    assert run.message_hub.get_info('keep_ckpt_ids') == [2]
    run.fail = {}
    run.iter = 5
    hook = make(max_keep_ckpts=1)
    hook.before_train(run)
    hook.after_train_iter(run, 5)
    assert names(tmp_path) == ['iter_6.pth', 'last_checkpoint']


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock by one that advances on sleep. Return the list of sleeps."""
    sleeps: list[float] = []
    monkeypatch.setattr(checkpoint_hook.time, 'sleep', sleeps.append)
    monkeypatch.setattr(checkpoint_hook.time, 'monotonic', lambda: sum(sleeps))
    return sleeps


def test_the_last_write_of_a_run_waits_for_room(tmp_path, clock):
    run = Run(tmp_path, max_iters=3, fail={3: full()})
    hook = make(save_last=True)
    write = run.save_checkpoint
    run.save_checkpoint = lambda *args, **kwargs: (sum(clock) > 100 and run.fail.clear(), write(*args, **kwargs))
    run.train(hook, 3)
    assert 100 < sum(clock) <= 130
    assert (tmp_path / 'iter_3.pth').is_file()
    assert 'After Ctrl-C or SIGTERM, it is tried once more' in run.log[0]


def test_it_does_not_wait_for_ever(tmp_path, clock):
    run = Run(tmp_path, max_iters=3, fail={3: full()})
    with pytest.raises(OSError, match=r'last checkpoint \(iteration 3\) could not be written.*No space left'):
        run.train(make(save_last=True), 3)
    assert 3000 < sum(clock) < 4000


def test_told_to_stop_it_tries_once_more_and_leaves(tmp_path, clock):
    run = Run(tmp_path, max_iters=3, fail={3: full()})
    hook = make(save_last=True)
    hook.is_stop_asked = lambda: sum(clock) >= 45
    with pytest.raises(OSError, match='could not be written.*the last complete checkpoint is .*iter_2.pth'):
        run.train(hook, 3)
    assert sum(clock) == 45


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, value):
    run = Run(tmp_path)
    with torch.no_grad():
        run.model.bias[1] = value
    with pytest.raises(FloatingPointError, match='1 of 2 weights are not finite, e.g. bias'):
        run.train(make(), 2)
    assert names(tmp_path) == []


def test_nothing_is_saved_between_two_updates(tmp_path):
    with pytest.raises(ValueError, match='interval=2 is not a multiple of accumulative_counts=3'):
        make().before_train(Run(tmp_path, counts=3))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'by_epoch': True}, 'by_epoch'),
        ({'save_best': 'x'}, 'save_best'),
        ({'out_dir': '/x'}, "out_dir='/x'.*--work-dir"),
        ({'filename_tmpl': 'step_{}.pth'}, 'filename_tmpl'),
    ],
)
def test_what_it_does_not_do_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def hold(folder: str, held, end) -> None:
    lock = lock_folder(folder)
    held.set()
    end.wait()
    del lock


def test_a_folder_in_use_is_refused_and_free_when_its_process_is_gone(tmp_path):
    context = multiprocessing.get_context('spawn')
    held, end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(tmp_path), held, end))
    other.start()
    assert held.wait(60)
    with pytest.raises(BlockingIOError, match=rf'in use by process {other.pid} on .*another --work-dir'):
        make().before_train(Run(tmp_path))
    other.kill()
    other.join()
    run = Run(tmp_path)
    run.train(make(), 2)
    assert (tmp_path / 'iter_2.pth').is_file()
    assert names(tmp_path) == ['iter_2.pth', 'last_checkpoint']

"""Hooks that end, or hinder, a run at a chosen point; imported by the configs that the tests here write."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import Hook

from pvvae_plugin.datasets import SyntheticVideoDataset
from pvvae_plugin.engine.hooks import checkpoint_hook
from pvvae_plugin.registry import DATASETS, HOOKS


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module()
class KillHook(Hook):
    """Ends the process where the environment says: ``KILL=WHERE:ITERATION``, and nowhere without it."""

    def __init__(self) -> None:
        self.where, _, iteration = os.environ.get('KILL', ':-1').partition(':')
        self.iteration = int(iteration)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter != self.iteration:
            return
        if self.where == 'step':  # one optimizer has made its step, the other has not
            list(runner.optim_wrapper.values())[-1].step = die
        elif self.where == 'write':
            LocalBackend.put = write_half
        elif self.where == 'note':  # the checkpoint has its name, nothing names the checkpoint
            checkpoint_hook.write_atomically = die
        elif self.where == 'publish':
            checkpoint_hook.publish = die

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.where == 'validation' and runner.iter >= self.iteration:
            die()


def write_half(self: LocalBackend, obj: bytes, filepath: str) -> None:
    """What a kill in the middle of a write leaves."""
    with open(filepath, 'wb') as file:
        file.write(obj[: len(obj) // 2])
        file.flush()
        die()


@HOOKS.register_module()
class SlowHook(Hook):
    """Makes iterations long enough for another process to hit one, and says when the first begins."""

    def __init__(self, seconds: float, started: str) -> None:
        self.seconds = seconds
        self.started = started

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter >= 3:
            Path(self.started).touch()
        time.sleep(self.seconds)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        Path(self.started + '.validation').touch()
        time.sleep(self.seconds)


@HOOKS.register_module()
class FullDiskHook(Hook):
    """Lets no file grow beyond 512 bytes while the iteration is in ``[begin, end)``: the kernel refuses, as if full."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, end
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.begin:
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, self.limits[1]))
        if runner.iter == self.end:
            resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


@DATASETS.register_module()
class StuckDataset(SyntheticVideoDataset):
    """Hangs, or dies, in the data worker at the clips whose number ends in ``at``."""

    def __init__(self, at: int, deadly: bool = False, **kwargs) -> None:
        self.at, self.deadly = at, deadly
        super().__init__(**kwargs)

    def load_clip(self, info, rng):
        number = int(''.join(filter(str.isdigit, info['path'])))
        if number % 10 == self.at:
            if self.deadly:
                die()
            # As a decoder that does not come back from C code: no signal but SIGKILL is heard.
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
            time.sleep(3600)
        return super().load_clip(info, rng)

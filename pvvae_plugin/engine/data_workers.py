"""Processes that read data: they outlive signals meant for the run, and are gone when it is."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Callable

from torch.utils.data import DataLoader

from .stop_request import ignore_signals


class DataWorkerError(RuntimeError):
    """A data worker hangs or has died. The state of the run was saved before this was raised."""


class ReadyWorker:
    """A ``worker_init_fn`` that has workers ignore signals and then calls the loader's own.

    Args:
        own: The loader's own.
    """

    def __init__(self, own: Callable[[int], None] | None) -> None:
        self.own = own

    def __call__(self, worker_id: int) -> None:
        ignore_signals()
        if self.own is not None:
            self.own(worker_id)


def prepare_workers(loader: DataLoader) -> DataLoader:
    """Let a loader's workers, which have not started yet, leave signals to the main process."""
    if not isinstance(loader.worker_init_fn, ReadyWorker):
        loader.worker_init_fn = ReadyWorker(loader.worker_init_fn)
    return loader


def kill_workers_at_exit() -> None:
    """Call it when all workers are there: before PyTorch and Python ask them by SIGTERM to end, and wait for it."""
    atexit.unregister(kill_workers)
    atexit.register(kill_workers)


def leave_worker_failures_to_the_loader() -> None:
    """Report a dead worker where its batch is missed, and not in the middle of a step.

    PyTorch raises in the handler of SIGCHLD, wherever the main thread happens to be: weights may be half updated there.
    """
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def kill_workers() -> None:
    """End all workers of this process at once. One that is stuck in a decoder would hear nothing else."""
    for child in multiprocessing.active_children():
        if child.daemon:  # as PyTorch's workers are; Python would end all of these with the process
            child.kill()
            child.join()

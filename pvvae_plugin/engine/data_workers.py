"""Data loader workers: they ignore signals meant for the run and are killed when it ends."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Callable

from torch.utils.data import DataLoader

from pvvae_plugin.datasets.checking.stuck_workers import kill_workers, limit_reading

from .stop_request import ignore_signals


class ReadyWorker:
    """``worker_init_fn`` that makes workers ignore signals and then calls the loader's original function.

    Args:
        own: The original ``worker_init_fn`` of the loader; None if it has none.
    """

    def __init__(self, own: Callable[[int], None] | None) -> None:
        self.own = own

    def __call__(self, worker_id: int) -> None:
        ignore_signals()
        if self.own is not None:
            self.own(worker_id)


def prepare_workers(loader: DataLoader) -> DataLoader:
    """Call :func:`limit_reading` and make the workers ignore signals.

    The main process must then call :func:`kill_workers_at_exit` before it ends.
    """
    if not isinstance(loader.worker_init_fn, ReadyWorker):
        loader.worker_init_fn = ReadyWorker(loader.worker_init_fn)
    return limit_reading(loader)


def kill_workers_at_exit() -> None:
    """Register :func:`kill_workers` to run at exit. Call this after all workers have started.

    Exit handlers run in reverse order, so this one runs before those of PyTorch and Python, which send SIGTERM and
    wait.
    """
    atexit.unregister(kill_workers)
    atexit.register(kill_workers)


def leave_worker_failures_to_the_loader() -> None:
    """Report a dead worker when its batch is requested, not in the middle of a step.

    PyTorch raises in its SIGCHLD handler, which may interrupt a weight update.
    """
    if hasattr(signal, 'SIGCHLD'):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

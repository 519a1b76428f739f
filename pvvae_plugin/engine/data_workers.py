"""Data loader workers: they ignore signals meant for the run and are killed when it ends."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.utils.data import DataLoader

from pvvae_plugin.datasets.checking.worker_watchdog import describe_reading

from .stop_request import ignore_signals

READ_TIMEOUT = 600  # seconds without a batch until a worker counts as stuck


class DataWorkerError(RuntimeError):
    """Raised if a data worker is stuck or has died."""


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


def limit_reading(loader: DataLoader) -> DataLoader:
    """Set the loader's ``timeout`` to :data:`READ_TIMEOUT` if it has none.

    Call this before the workers start.
    """
    if loader.num_workers and not loader.timeout:
        loader.timeout = READ_TIMEOUT
    return loader


def prepare_workers(loader: DataLoader) -> DataLoader:
    """Call :func:`limit_reading` and make the workers ignore signals.

    The main process must then call :func:`kill_workers_at_exit` before it ends.
    """
    if not isinstance(loader.worker_init_fn, ReadyWorker):
        loader.worker_init_fn = ReadyWorker(loader.worker_init_fn)
    return limit_reading(loader)


def is_of_workers(error: Exception) -> bool:
    """Return whether this is PyTorch's error for a stuck or dead worker."""
    return isinstance(error, RuntimeError) and str(error).startswith('DataLoader')


def describe_stuck(error: Exception, kept: str = '') -> str:
    """Return an error message that names the files being read. Call this before the workers are killed.

    Args:
        error: The error raised by PyTorch.
        kept: Sentence on the results so far, e.g. the path of a checkpoint.
    """
    reading = describe_reading() or 'No worker has recorded the file that it was reading'
    return (
        f'{error}. {reading}. {kept}Find such files with tools/verify_dataset.py and exclude them. If they are '
        'only slow, increase the timeout of the data loader'
    )


@contextmanager
def naming_files(kept: str = '') -> Iterator[None]:
    """Replace PyTorch's error for a stuck or dead worker by one that names the files, and kill the workers.

    Args:
        kept: Sentence on the results so far, e.g. the path of a checkpoint.

    Raises:
        DataWorkerError: If a worker is stuck or dead.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_of_workers(error):
            raise
        message = describe_stuck(error, kept)
        kill_workers()
        raise DataWorkerError(message) from error


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


def kill_workers() -> None:
    """Kill all workers of this process. A worker stuck in a decoder ignores anything weaker."""
    for child in multiprocessing.active_children():
        if child.daemon:  # PyTorch's workers are daemons, which Python would end with the process anyway
            child.kill()
            child.join()

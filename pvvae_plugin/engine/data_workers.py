"""Processes that read data: they outlive signals meant for the run, and are gone when it is."""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.utils.data import DataLoader

from pvvae_plugin.datasets.checking.worker_watchdog import describe_reading

from .stop_request import ignore_signals

READ_TIMEOUT = 600  # seconds without any batch, after which a worker counts as stuck


class DataWorkerError(RuntimeError):
    """A data worker hangs or has died."""


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


def limit_reading(loader: DataLoader) -> DataLoader:
    """Let nobody wait for ever for a loader's workers, which have not started yet.

    Where the loader has no ``timeout`` of its own it is :data:`READ_TIMEOUT`.
    """
    if loader.num_workers and not loader.timeout:
        loader.timeout = READ_TIMEOUT
    return loader


def prepare_workers(loader: DataLoader) -> DataLoader:
    """The same, and let them leave signals to the main process, which must end with :func:`kill_workers_at_exit`."""
    if not isinstance(loader.worker_init_fn, ReadyWorker):
        loader.worker_init_fn = ReadyWorker(loader.worker_init_fn)
    return limit_reading(loader)


def is_of_workers(error: Exception) -> bool:
    """Whether PyTorch says by this error that a worker is stuck or dead."""
    return isinstance(error, RuntimeError) and str(error).startswith('DataLoader')


def describe_stuck(error: Exception, kept: str = '') -> str:
    """A message that names the files. To be called while the workers live.

    Args:
        error: PyTorch's.
        kept: What has become of the work so far.
    """
    reading = describe_reading() or 'No worker has noted what it was reading'
    return (
        f'{error}. {reading}. {kept}Find such files with tools/verify_dataset.py and leave them out. Those that are '
        'only slow need a larger timeout of the data loader'
    )


@contextmanager
def naming_files(kept: str = '') -> Iterator[None]:
    """Around the use of a data loader: files are named where a worker is stuck or dead, and no worker is waited for.

    Args:
        kept: What has become of the work so far.

    Raises:
        DataWorkerError: In the place of PyTorch's error.
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

"""Data loader workers that are stuck in a file or have died: a limit on reading, and errors that name the files."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.data import DataLoader

from .worker_watchdog import describe_reading

READ_TIMEOUT = 600  # seconds without a batch until a worker counts as stuck


class DataWorkerError(RuntimeError):
    """Raised if a data worker is stuck or has died."""


def limit_reading(loader: DataLoader) -> DataLoader:
    """Set the loader's ``timeout`` to :data:`READ_TIMEOUT` if it has none.

    Call this before the workers start.
    """
    if loader.num_workers and not loader.timeout:
        loader.timeout = READ_TIMEOUT
    return loader


def is_of_workers(error: Exception) -> bool:
    """Return whether this is PyTorch's error for a stuck or dead worker, not yet a :class:`DataWorkerError`."""
    pytorchs = isinstance(error, RuntimeError) and not isinstance(error, DataWorkerError)
    return pytorchs and str(error).startswith('DataLoader')


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


def kill_workers() -> None:
    """Kill all workers of this process. A worker stuck in a decoder ignores anything weaker."""
    for child in multiprocessing.active_children():
        if child.daemon:  # PyTorch's workers are daemons, which Python would end with the process anyway
            child.kill()
            child.join()

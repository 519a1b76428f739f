"""Pool of worker processes that may hang or crash: lost workers are replaced and their items reported."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

START_SECONDS = 300  # limit for a worker's imports, which are slow only for the first worker
# Maximum seconds per wait. If Ctrl-C arrives in another thread (such as torch's), it does not interrupt the wait, and
# Python only handles it afterwards.
WAIT_SECONDS = 1.0


class Lost(NamedTuple):
    """Reason why an item has no result.

    Attributes:
        kind: ``'hung'``, ``'crashed'`` or, if the function raised an error, ``'failed'``.
        reason: Description.
    """

    kind: str
    reason: str


class _Worker:
    """Process that handles one item at a time."""

    def __init__(self, context: Any, function: Callable[[Any], Any], memory: int | None) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(function, theirs, memory), daemon=True)
        self.process.start()
        theirs.close()
        self.index: int | None = None  # of the current item
        self.deadline = time.monotonic() + START_SECONDS

    def wait_until_ready(self) -> None:
        """Wait for a replacement, so that its start does not count towards the timeout of its first item.

        Raises:
            RuntimeError: If it does not start in time, or dies.
        """
        if not self.connection.poll(START_SECONDS):
            raise RuntimeError(f'a worker process could not start again: not done after {START_SECONDS:g} s')
        if (found := _receive(self)) is not None:
            raise RuntimeError(f'a worker process could not start again: {found.reason}')

    def give(self, index: int, item: Any, timeout: float) -> None:
        self.index, self.deadline = index, time.monotonic() + timeout
        self.connection.send(item)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def run_guarded(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    num_workers: int,
    timeout: float,
    memory: int | None = None,
) -> Iterator[tuple[int, Any]]:
    """Call a function for all items in processes that may hang, crash or run out of memory.

    Args:
        function: Function to call in the workers. It and its results must be picklable.
        items: One argument per call.
        num_workers: Number of processes.
        timeout: Seconds per item, after which the worker is killed.
        memory: Bytes that a worker may allocate in addition to its initial memory (Linux only). None for no limit.

    Yields:
        Index of an item and its result or :class:`Lost`, in the order of completion.

    Raises:
        RuntimeError: If a worker cannot start.
    """
    context = _context(function)
    waiting = iter(enumerate(items))
    workers: list[_Worker] = []
    try:
        workers = [_Worker(context, function, memory) for _ in range(min(num_workers, len(items)))]
        while workers:
            by_connection = {worker.connection: worker for worker in workers}
            left = min(worker.deadline for worker in workers) - time.monotonic()
            ready = [by_connection[c] for c in wait(list(by_connection), min(max(0.0, left), WAIT_SECONDS))]
            late = [worker for worker in workers if worker not in ready and worker.deadline <= time.monotonic()]
            for worker in ready + late:
                limit = START_SECONDS if worker.index is None else timeout
                found = Lost('hung', f'not done after {limit:g} s') if worker in late else _receive(worker)
                index = worker.index
                gone = isinstance(found, Lost) and found.kind != 'failed'
                if index is None and gone:
                    raise RuntimeError(f'a worker process could not start: {found.reason}')
                entry = next(waiting, None)
                if gone or entry is None:
                    worker.stop()
                    workers.remove(worker)
                if gone and entry is not None:
                    worker = _Worker(context, function, memory)
                    workers.append(worker)
                    worker.wait_until_ready()
                if entry is not None:
                    worker.give(*entry, timeout)
                if index is not None:
                    yield index, found
    finally:
        for worker in workers:
            worker.stop()


def _receive(worker: _Worker) -> Any:
    try:
        return worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(10)
        code = worker.process.exitcode
        name = signal.Signals(-code).name if code is not None and code < 0 else None
        return Lost('crashed', f'the process that read it was killed by {name}' if name else f'exit code {code}')


def _work(function: Callable[[Any], Any], connection: Connection, memory: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process stops the workers
    if memory is not None:
        _limit_memory(memory)
    connection.send(None)
    while True:
        try:
            item = connection.recv()
        except EOFError:  # the main process is gone
            return
        try:
            result = function(item)
        except Exception as error:
            result = Lost('failed', f'{type(error).__name__}: {error}'[:500])
        connection.send(result)


def _limit_memory(memory: int) -> None:
    try:
        import resource

        with open('/proc/self/statm') as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # not Linux
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = now + memory
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _context(function: Callable) -> Any:
    """Return a context that does not fork this process: a fork would copy decoders and threads in an unknown state."""
    if sys.platform == 'win32':
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['pvvae_plugin.datasets'])
    return context

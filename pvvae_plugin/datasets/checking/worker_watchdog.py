"""Record of the file that each data worker is reading, readable even after the worker has frozen or died.

Each worker keeps one small file in a temporary folder named after the main process, and overwrites it whenever it
starts or finishes a clip.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path

from torch.utils.data import get_worker_info

NOTHING = b'\0'
_LOADED = time.time()  # older notes belong to an earlier process with the same pid
_note: tuple[int, int] | None = None  # pid of this process and the descriptor of its file


def note_reading(path: str) -> None:
    """Record that this data worker starts reading a file. Does nothing outside of data workers."""
    worker = get_worker_info()
    if worker is not None:
        _write(f'{worker.id}\t{time.time()}\t{path}'.encode(errors='surrogateescape') + NOTHING)


def note_done() -> None:
    """Record that this data worker has finished reading."""
    if get_worker_info() is not None:
        _write(NOTHING)


def describe_reading() -> str:
    """Describe which files the data workers of this process are reading and for how long, including dead workers.

    Returns:
        ``'worker 0 (pid 123) has been reading /x/a.mp4 for 63 s; ...'``, the longest first, or ``''`` if nothing is
        known.
    """
    alive = {process.pid for process in multiprocessing.active_children()}
    now, found = time.time(), []
    for note in _folder(os.getpid()).glob('*'):
        try:
            content = note.read_bytes()
        except OSError:  # the worker has just exited
            continue
        worker, _, rest = content.partition(NOTHING)[0].decode(errors='surrogateescape').partition('\t')
        since, _, path = rest.partition('\t')
        if path and float(since) >= _LOADED:
            found.append((now - float(since), int(worker), int(note.name), path))
    return '; '.join(
        f'worker {worker} (pid {pid}) has been reading {path} for {seconds:.0f} s'
        if pid in alive
        else f'worker {worker} (pid {pid}), which has died, started to read {path} {seconds:.0f} s ago'
        for seconds, worker, pid, path in sorted(found, reverse=True)
    )


def _write(content: bytes) -> None:
    global _note
    if _note is None or _note[0] != os.getpid():
        _note = os.getpid(), _open()
    _, file = _note
    if file >= 0:
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, content)


def _open() -> int:
    """Open the file of this worker. Returns -1 if it cannot be created, because a run must not fail for that."""
    folder = _folder(multiprocessing.parent_process().pid)
    for _ in range(3):  # an exiting worker may remove the folder in between
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_uid != _user():  # another user's folder in a shared temporary folder
                return -1
            note = folder / str(os.getpid())
            file = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError:
            continue
        Finalize(None, _remove, args=(note, file), exitpriority=0)
        return file
    return -1


def _remove(note: Path, file: int) -> None:
    os.close(file)
    note.unlink(missing_ok=True)
    with suppress(OSError):  # other workers still have files there, or the main process has removed it
        note.parent.rmdir()


def _folder(pid: int) -> Path:
    return Path(tempfile.gettempdir()) / f'pvvae_reading_{_user()}_{pid}'


def _user() -> int:
    return os.getuid() if hasattr(os, 'getuid') else 0


def _forget() -> None:
    """Remove the notes of this process's workers."""
    shutil.rmtree(_folder(os.getpid()), ignore_errors=True)


# Not atexit, which runs before multiprocessing stops the workers: a worker may still start to read.
Finalize(None, _forget, exitpriority=-100)

"""Files that appear whole or not at all, what identifies them, and folders that one process has to itself."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mmengine.logging import print_log

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = '.lock'
FULL = tuple(number for name in ('ENOSPC', 'EDQUOT', 'EFBIG') if (number := getattr(errno, name, None)) is not None)
SECONDS_BETWEEN_WARNINGS = 60
_warned: dict[str, float] = {}
_locks: dict[Path, IO[str]] = {}


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file by way of a temporary one beside it, so that a reader never meets half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        temporary.write_bytes(content)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, once its bytes are on the disk: after a power cut no name holds half a file."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    if os.name == 'nt' and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if os.name != 'nt' else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def without_space(what: str) -> Iterator[None]:
    """Around the writing of what can be done without: a full disk is reported, now and then, and raises nothing.

    Args:
        what: What is written, for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        now = time.monotonic()
        if now - _warned.get(what, -SECONDS_BETWEEN_WARNINGS) >= SECONDS_BETWEEN_WARNINGS:
            _warned[what] = now
            print_log(
                f'no {what} written ({error.strerror}): the run goes on without, make room',
                logger='current',
                level=logging.WARNING,
            )


def lock_folder(folder: str | Path) -> IO[str] | None:
    """Keep other processes from writing to a folder for as long as the returned file is open, or this process lives.

    The kernel drops the lock with the process, however it ends, and children that are forked do not inherit it. Asked
    again, a process gets the file that it holds.

    Returns:
        The open lock file; None where the system, or the file system, has no such locks.

    Raises:
        BlockingIOError: If another process has the folder, naming it.
    """
    if fcntl is None:
        return None
    path = Path(folder).resolve() / LOCK
    if (held := _locks.get(path)) is not None and not held.closed:
        return held  # to open the file again, and close it, would end the lock
    file = path.open('a+', encoding='utf-8')
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        holder = file.read().strip() or 'another process'
        file.close()
        raise BlockingIOError(f'{folder} is in use by {holder}') from error
    except OSError:  # a network file system without locks
        file.close()
        return None
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
    _locks[path] = file
    return file


def read_json(path: str | Path, what: str) -> dict[str, Any]:
    """A JSON object of a file.

    Args:
        path: The file.
        what: What it should be, for the message.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}: it should be {what}')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is no JSON ({error}): it should be {what}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} holds a {type(content).__name__} and no JSON object: it should be {what}')
    return content


def file_sha256(*paths: str | Path) -> str:
    """Hex digest of a file, or of several one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, 'rb') as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()

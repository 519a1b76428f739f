"""Atomic file writes, checksums, and folder locks."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
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
    """Write a file atomically through a temporary file, so readers never see a partial one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        temporary.write_bytes(content)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file atomically, with null for non-finite numbers, see :func:`finite`.

    Values of other types, such as paths, are written as text.

    Example:
        >>> from pvvae_plugin.files import read_json, write_json
        >>> write_json('metrics.json', {'psnr': 30.5, 'curve': [1.0, float('nan')]})
        >>> read_json('metrics.json', 'metrics')
        {'psnr': 30.5, 'curve': [1.0, None]}
    """
    text = json.dumps(finite(content), indent=2, allow_nan=False, default=str)
    write_atomically(path, (text + '\n').encode())


def finite(value: Any) -> Any:
    """Replace non-finite numbers in nested dicts and sequences by None: JSON does not support them.

    Example:
        >>> from pvvae_plugin.files import finite
        >>> finite({'a': (1.0, float('inf'))})
        {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_writable(path: str | Path) -> None:
    """Create a file if it does not exist, to fail before long work if it cannot be written.

    Raises:
        OSError: If the file cannot be created or written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.open('a').close()


def publish(temporary: Path, path: Path) -> None:
    """Flush a finished file to disk, then rename it. A power failure cannot leave a partial file under the name."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    if os.name == 'nt' and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY if os.name != 'nt' else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def without_space(what: str) -> Iterator[None]:
    """Ignore a full disk while writing optional files. It logs a warning, at most once per minute.

    Args:
        what: Name of the files, for the message.
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
                f'no {what} written ({error.strerror}): the run continues; free disk space',
                logger='current',
                level=logging.WARNING,
            )


def lock_folder(folder: str | Path) -> IO[str] | None:
    """Lock a folder against other processes until the returned file is closed or this process ends.

    The kernel releases the lock when the process ends for any reason. Forked children do not inherit it. A second call
    in the same process returns the same file.

    Returns:
        The open lock file; None if the operating system or file system does not support locks.

    Raises:
        BlockingIOError: If another process holds the lock. The message names the process.
    """
    if fcntl is None:
        return None
    path = Path(folder).resolve() / LOCK
    if (held := _locks.get(path)) is not None and not held.closed:
        return held  # opening and closing the file again would release the lock
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
    """Read a JSON object from a file.

    Args:
        path: The file.
        what: Description of the expected content, for the message.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file does not contain a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no file {path}: it should be {what}')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not valid JSON ({error}): it should be {what}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} contains a {type(content).__name__} instead of a JSON object: it should be {what}')
    return content


def read_scalars(work_dir: str | Path) -> list[dict[str, Any]]:
    """Read the logged lines of all launches of a run, in order; each has ``step``.

    The last line of a file may be truncated, because the run was killed while it wrote it; it is skipped.

    Raises:
        ValueError: If a file is not a log.
    """
    found = []
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        try:
            lines = [line for line in file.read_text(encoding='utf-8').splitlines() if line]
            for number, line in enumerate(lines, start=1):
                try:
                    found.append(dict(json.loads(line)))
                except ValueError:
                    if number < len(lines):
                        raise
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f'{file} is not a log with one JSON object per line: {error}') from error
    return found


def file_state(path: str | Path) -> list[int] | None:
    """Return size and modification time (ns) of a file; None if it does not exist. Replaced files differ in them.

    Example:
        >>> from pvvae_plugin.files import file_state
        >>> _ = open('clip.mp4', 'wb').write(bytes(9))
        >>> file_state('clip.mp4')[0], file_state('missing.mp4')
        (9, None)
    """
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def file_sha256(*paths: str | Path) -> str:
    """Return the SHA-256 hex digest of one file, or of several concatenated files."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, 'rb') as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()

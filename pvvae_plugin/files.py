"""Files that appear whole or not at all, and what identifies them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file by way of a temporary one beside it, so that a reader never meets half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(*paths: str | Path) -> str:
    """Hex digest of a file, or of several one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, 'rb') as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()

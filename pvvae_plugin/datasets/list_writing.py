"""Lists of clips as :func:`~pvvae_plugin.datasets.listing.read_annotations` reads them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pvvae_plugin.files import write_atomically

_ENDS_LIKE_A_LABEL = re.compile(r'\s[+-]?\d+$')


def list_problem(path: Path, entries: Sequence[dict]) -> str | None:
    """Why a list of ``entries`` must not have this name; None if it may."""
    segments = any('segment' in entry for entry in entries)
    if segments != (path.suffix.lower() == '.csv') or path.suffix.lower() == '.json':
        return (
            'a list of segments must end in .csv'
            if segments
            else 'a list of whole files ends in neither .csv nor .json'
        )
    if path.is_dir():
        return 'it is a folder'
    return None


def write_annotations(path: Path, entries: Sequence[dict], data_root: str, class_folders: bool) -> list[str]:
    """Write an ``ann_file``.

    Args:
        path: The list.
        entries: As ``load_data_list`` of a VideoDataset returns them.
        data_root: What paths in the list start from.
        class_folders: Labels follow from folders by a ``class_file`` and are not written.

    Returns:
        Paths of entries that such a list cannot hold, because of line breaks or spaces at an end.
    """
    segments = any('segment' in entry for entry in entries)
    labelled = not class_folders and any(entry.get('label') is not None for entry in entries)
    text, left_out = io.StringIO(newline=''), []
    table = csv.writer(text, lineterminator='\n')
    if segments:
        table.writerow(['path', 'start', 'end', *(['label'] if labelled else [])])
    for entry in entries:
        name = os.path.relpath(entry.get('file', entry['path']), data_root)
        label = [entry['label']] if labelled else []
        if '\n' in name or '\r' in name or name != name.strip() or (not labelled and _ENDS_LIKE_A_LABEL.search(name)):
            left_out.append(entry['path'])
        elif segments:
            table.writerow([name, *entry['segment'], *label])
        else:
            text.write(' '.join(map(str, [name, *label])) + '\n')
    write_atomically(path, text.getvalue().encode())
    return left_out

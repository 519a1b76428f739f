"""Reading clip lists from annotation files and class files, and writing them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pvvae_plugin.files import write_atomically

_ENDS_LIKE_A_LABEL = re.compile(r'\s[+-]?\d+$')
_LABELLED = re.compile(r'^(.*\S)\s+([+-]?\d+)$')
_SEGMENT_COLUMNS = ['path', 'start', 'end']


class _Row(NamedTuple):
    """One entry of a list, and the line it comes from."""

    where: str
    path: str
    label: int | None
    segment: tuple[float, float] | None


def read_class_file(path: str) -> tuple[str, ...]:
    """Read class names, one per line, with or without a leading number (``1 ApplyEyeMakeup``).

    Raises:
        ValueError: If the file contains no class name, or a name twice.
    """
    names = [re.sub(r'^\d+\s+', '', line) for _, line in _lines(path)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names or repeated:
        problem = f'lists {", ".join(repeated)} more than once' if repeated else 'lists no class'
        raise ValueError(f'class_file {path} {problem}; give one class per line, e.g. "1 ApplyEyeMakeup"')
    return tuple(names)


def read_annotations(ann_file: str, data_root: str, classes: Sequence[str] | None, class_folders: bool) -> list[dict]:
    """Read a list of clips with one ``path`` or ``path label`` per line, or a ``.csv`` of video segments.

    The first line of a ``.csv`` is ``path,start,end`` or ``path,start,end,label``. Clips are drawn from the frames
    shown from ``start`` to ``end``, in seconds from the first frame of the video; segments are cut at the end of the
    video. A ``.json`` file must be the ``samples.json`` that ``tools/sample.py`` writes next to its videos.

    Args:
        ann_file: The list. Blank lines are ignored. Paths may contain spaces.
        data_root: Root of relative paths.
        classes: Class names, or None if unknown.
        class_folders: If True, the label is the class of the first folder of the path, and numbers in the list count
            from 1 (as in UCF101's lists). If False, the number is the label and counts from 0.

    Returns:
        One ``dict(path=..., label=...)`` per clip. The label is None if the list gives none. Segments also have
        ``file`` (the video) and ``segment`` (start and end), and ``#t=start,end`` is appended to their ``path``.

    Raises:
        ValueError: If the list is empty, a label is out of range, missing or not the class of the folder, or a line of
            a ``.csv`` is not a segment.
    """
    index_of = {name: label for label, name in enumerate(classes or ())}
    segments = ann_file.lower().endswith('.csv')
    read_rows = _segment_rows if segments else _sample_rows if ann_file.lower().endswith('.json') else _plain_rows
    data_list = []
    for where, path, given, segment in read_rows(ann_file):
        full_path = os.path.join(data_root, path)
        if class_folders:
            label = _label_of_folder(os.path.relpath(full_path, data_root), given, index_of, where)
        else:
            label = given
            if label is not None and not 0 <= label < (len(classes) if classes else label + 1):
                valid = f'0..{len(classes) - 1}' if classes else '0 and above'
                raise ValueError(
                    f'{where}: label {label} is out of range, valid are {valid}. If the list counts from 1, like '
                    "UCF101's, also give class_file"
                )
        if segment is None:
            data_list.append({'path': full_path, 'label': label})
        else:
            name = f'{full_path}#t={segment[0]},{segment[1]}'
            data_list.append({'path': name, 'file': full_path, 'segment': segment, 'label': label})
    if not data_list:
        needed = f'one segment per line below {_valid_headers()}' if segments else 'one "path" or "path label" per line'
        raise ValueError(f'ann_file {ann_file} lists no clip; give {needed}')
    unlabeled = [entry['path'] for entry in data_list if entry['label'] is None]
    if 0 < len(unlabeled) < len(data_list):
        raise ValueError(
            f'{ann_file} has labels for some clips but not for {len(unlabeled)} others, e.g. {unlabeled[0]}: label '
            'all clips or none'
        )
    return data_list


def list_problem(path: Path, entries: Sequence[dict]) -> str | None:
    """Return why ``path`` is not a valid file name for a list of ``entries``, or None if it is valid."""
    segments = any('segment' in entry for entry in entries)
    if segments != (path.suffix.lower() == '.csv') or path.suffix.lower() == '.json':
        return (
            'a list of segments must end in .csv' if segments else 'a list of whole files must not end in .csv or .json'
        )
    if path.is_dir():
        return 'it is a folder'
    return None


def write_annotations(path: Path, entries: Sequence[dict], data_root: str, class_folders: bool) -> list[str]:
    """Write an ``ann_file``.

    Args:
        path: The list.
        entries: Entries as returned by ``VideoDataset.load_data_list``.
        data_root: Root of the paths in the list.
        class_folders: If True, labels follow from the folders and a ``class_file``, and are not written.

    Returns:
        Paths of entries that were skipped, because a list cannot represent their line breaks or surrounding spaces.
    """
    segments = any('segment' in entry for entry in entries)
    labeled = not class_folders and any(entry.get('label') is not None for entry in entries)
    text, left_out = io.StringIO(newline=''), []
    table = csv.writer(text, lineterminator='\n')
    if segments:
        table.writerow(['path', 'start', 'end', *(['label'] if labeled else [])])
    for entry in entries:
        name = os.path.relpath(entry.get('file', entry['path']), data_root)
        label = [entry['label']] if labeled else []
        if '\n' in name or '\r' in name or name != name.strip() or (not labeled and _ENDS_LIKE_A_LABEL.search(name)):
            left_out.append(entry['path'])
        elif segments:
            table.writerow([name, *entry['segment'], *label])
        else:
            text.write(' '.join(map(str, [name, *label])) + '\n')
    write_atomically(path, text.getvalue().encode())
    return left_out


def _label_of_folder(path: str, given: int | None, index_of: dict[str, int], where: str) -> int:
    folder = path.replace('\\', '/').split('/')[0]
    if folder not in index_of:
        raise ValueError(f"{where}: the path's first folder, {folder!r}, is not among the {len(index_of)} classes")
    label = index_of[folder]
    if given is not None and given != label + 1:
        raise ValueError(
            f'{where}: label {given} is out of range or of another class; {folder} is number {label + 1} of '
            f'{len(index_of)} (with class_file, labels count from 1)'
        )
    return label


def _plain_rows(path: str) -> Iterator[_Row]:
    for number, line in _lines(path):
        match = _LABELLED.match(line)
        clip, label = (match[1], int(match[2])) if match else (line, None)
        yield _Row(_where(path, number, line), clip, label, None)


def _segment_rows(path: str) -> Iterator[_Row]:
    header = None
    for number, cells in _records(path):
        where = _where(path, number, ','.join(cells))
        if header is None:
            header = cells
            if header not in (_SEGMENT_COLUMNS, [*_SEGMENT_COLUMNS, 'label']):
                raise ValueError(
                    f'{where}: the first line of a .csv must be {_valid_headers()}. Rename a list of "path" or '
                    '"path label" lines, e.g. to list.txt'
                )
            continue
        if len(cells) != len(header):
            raise ValueError(
                f'{where}: got {len(cells)} values, expected {len(header)} ({",".join(header)}); quote paths that '
                'contain commas'
            )
        row = dict(zip(header, cells, strict=True))
        empty = [name for name, cell in row.items() if not cell]
        if empty:
            raise ValueError(f'{where}: {" and ".join(empty)} must not be empty')
        if not re.fullmatch(r'[+-]?\d+', row.get('label', '0')):
            raise ValueError(f'{where}: label {row["label"]!r} is not a whole number')
        label = int(row['label']) if 'label' in row else None
        yield _Row(where, row['path'], label, _segment(row['start'], row['end'], where))


def _sample_rows(path: str) -> Iterator[_Row]:
    try:
        content = json.loads(_text(path))
        complete = content['complete']
        rows = [_Row(f'file {i} of {path}', str(f['file']), f['label'], None) for i, f in enumerate(content['files'])]
        if any(type(row.label) not in (int, type(None)) for row in rows):
            raise TypeError('a label is not a whole number')
        # The list is picked up from the folder, not named by the user, so it must not point outside the folder.
        if outside := [row.path for row in rows if os.path.basename(row.path) != row.path or row.path in ('', '..')]:
            raise ValueError(f'{outside[0]!r} is not a plain file name: samples must be in the same folder')
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f'{path} is not a list of samples as written by tools/sample.py: {error!r}') from error
    if not complete:
        raise ValueError(f'{path} is incomplete because sampling was stopped: run the same command again to finish')
    yield from rows


def _segment(start: str, end: str, where: str) -> tuple[float, float]:
    try:
        segment = float(start), float(end)
    except ValueError:
        segment = math.nan, math.nan
    if not 0 <= segment[0] < segment[1] < math.inf:
        raise ValueError(f'{where}: start {start} and end {end} must be seconds with 0 <= start < end')
    return segment


def _valid_headers() -> str:
    columns = ','.join(_SEGMENT_COLUMNS)
    return f'"{columns}" or "{columns},label"'


def _where(path: str, number: int, text: str) -> str:
    return f'line {number} of {path} ({text!r})'


def _records(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the non-blank records of a .csv with their line numbers, from 1."""
    lines = csv.reader(io.StringIO(_text(path)), strict=True)
    try:
        for cells in lines:
            cells = [cell.strip() for cell in cells]
            if any(cells) or len(cells) > 1:
                yield lines.line_num, cells
    except csv.Error as error:
        raise ValueError(f'line {lines.line_num} of {path} is not comma-separated: {error}') from error


def _lines(path: str) -> list[tuple[int, str]]:
    """Return the non-blank lines with their line numbers, from 1."""
    lines = enumerate(_text(path).split('\n'), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _text(path: str) -> str:
    try:
        with open(path, encoding='utf-8-sig') as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not UTF-8 ({error}): save it as UTF-8') from error

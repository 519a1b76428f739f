"""Finding the clips of a folder, and naming the files that are not clips."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .readers.base import is_image, is_video
from .readers.opening import starts_like_text

NESTED = 'videos or images in nested folders'
MAX_OPENED = 100  # opened files per extension, to find out if they are text


class NestedClipsError(ValueError):
    """Error if a folder has clips in deeper folders than the class folders."""


@dataclass
class LeftOut:
    """Files of a folder that are not read.

    Attributes:
        kind: Extension, or another name of these files.
        count: Number of files.
        example: Path of the first one, relative to the folder.
        reason: Why they are not read, and the remedy.
    """

    kind: str
    count: int
    example: str
    reason: str

    def __str__(self) -> str:
        return f'{self.count} {self.kind} (e.g. {self.example}): {self.reason}'


class FolderClips(NamedTuple):
    """Clips of a folder.

    Attributes:
        clips: One ``dict(path=..., label=...)`` per clip.
        classes: Names of the classes, or None without class folders.
        left_out: Files that are not read.
    """

    clips: list[dict]
    classes: tuple[str, ...] | None
    left_out: list[LeftOut]


def scan_folder(data_root: str, classes: Sequence[str] | None, images: bool) -> FolderClips:
    """List the clips of a folder: ``data_root/CLASS/file``, or ``data_root/file`` without labels.

    Args:
        data_root: The folder.
        classes: Class names in the order of the labels. None sorts the names of the class folders.
        images: Whether to list images as clips.

    Raises:
        NestedClipsError: If clips are in nested folders.
        ValueError: If the folder has no clips, clips are both directly in the folder and in class folders, or a class
            folder is not in ``classes``.

    Example:
        >>> import os
        >>> from pvvae_plugin.datasets.folders import scan_folder
        >>> for name in ('run/a.mp4', 'run/b.dav'):
        ...     os.makedirs('videos/run', exist_ok=True)
        ...     _ = open(f'videos/{name}', 'wb').write(bytes(9))
        >>> found = scan_folder('videos', None, images=False)
        >>> found.clips, str(found.left_out[0])
        ([{'path': 'videos/run/a.mp4', 'label': 0}], '1 .dav (e.g. run/b.dav): not a known extension')
    """
    flat = _clips_in(data_root, images)
    with os.scandir(data_root) as entries:
        folders = sorted(entry.name for entry in entries if _may_be(entry.is_dir) and not entry.name.startswith('.'))
    by_class = {name: clips for name in folders if (clips := _clips_in(os.path.join(data_root, name), images))}
    if flat and by_class:
        raise ValueError(
            f'{data_root} holds clips both directly (e.g. {flat[0]}) and in class folders (e.g. '
            f'{next(iter(by_class))}): remove one of the two, or list the clips in an ann_file'
        )
    left_out = list_left_out(data_root, {*flat, *(path for clips in by_class.values() for path in clips)}, images)
    if not flat and not by_class:
        raise ValueError(_nothing_found(data_root, folders, images, left_out))
    if nested := next((group for group in left_out if group.kind == NESTED), None):
        raise NestedClipsError(f'{data_root} has {nested}')
    if flat:
        return FolderClips([{'path': path, 'label': None} for path in flat], None, left_out)
    if not classes and (empty := [name for name in folders if name not in by_class]):
        left_out.append(LeftOut('folders without a clip', len(empty), empty[0], 'not used as classes'))
    names = tuple(classes) if classes else tuple(by_class)
    unknown = [name for name in by_class if name not in names]
    if unknown:
        raise ValueError(
            f'{data_root} has folders that are not among the {len(names)} given classes: {", ".join(unknown[:5])}; add '
            'them to the classes, or move them away'
        )
    clips = [{'path': path, 'label': names.index(name)} for name, paths in by_class.items() for path in paths]
    return FolderClips(clips, names, left_out)


def list_left_out(root: str, taken: Collection[str], images: bool, subfolders: bool = True) -> list[LeftOut]:
    """List the files of a folder that were not taken, grouped by extension.

    Text and hidden files are not listed: lists and licenses belong next to videos.

    Args:
        root: The folder.
        taken: Paths that were taken, starting with ``root``.
        images: Whether images were taken as clips.
        subfolders: Whether to list the files of subfolders, too.
    """
    groups: dict[str, LeftOut] = {}
    opened: dict[str, list[bool]] = {}
    for folder, names, files in os.walk(root, followlinks=True):
        if not subfolders:
            names.clear()
        # Links are followed only to class folders: deeper ones may form loops.
        links = folder == root
        names[:] = sorted(n for n in names if n[0] != '.' and (links or not os.path.islink(os.path.join(folder, n))))
        for name in sorted(files):
            path = os.path.join(folder, name)
            if name.startswith('.') or path in taken:
                continue
            kind, reason = _reason(path, images)
            if not is_video(name) and not is_image(name):
                texts = opened.setdefault(kind, [])
                if len(texts) < MAX_OPENED:
                    texts.append(_is_text(path))
                if texts[-1]:
                    continue
            group = groups.setdefault(kind, LeftOut(kind, 0, os.path.relpath(path, root), reason))
            group.count += 1
    return sorted(groups.values(), key=lambda group: group.kind)


def describe_left_out(root: str, left_out: Sequence[LeftOut]) -> str:
    """Return a message that counts and names the files of a folder that are not read."""
    return f'{root} has files that are not read: {"; ".join(map(str, left_out))}. See docs/data.md#supported-files'


def _reason(path: str, images: bool) -> tuple[str, str]:
    """Return the group of a file that was not taken, and why it was not."""
    extension = os.path.splitext(path)[1].lower() or 'without extension'
    wanted = is_video(path) or (images and is_image(path))
    if wanted and os.path.isfile(path):
        return NESTED, (
            'only data_root/CLASS/clip.mp4 and data_root/clip.mp4 are read; move them up, set data_root to the parent '
            'of the class folders, or list them in an ann_file'
        )
    if wanted:
        return extension, 'not a regular file (a broken link or a pipe); restore it or delete it'
    if is_image(path):
        return extension, (
            'set clip_len=1 to use images as clips of one frame, or join the frames of a video into a file, e.g. '
            f'ffmpeg -framerate 25 -i %05d{extension} clip.mp4'
        )
    return extension, 'not a known extension'


def _is_text(path: str) -> bool:
    try:
        return os.path.isfile(path) and starts_like_text(path)
    except OSError:
        return False


def _may_be(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a loop of symbolic links
        return False


def _clips_in(folder: str, images: bool) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(
            entry.path
            for entry in entries
            # macOS creates "._NAME" files with the same extension next to videos.
            if not entry.name.startswith('.')
            and (is_video(entry.name) or (images and is_image(entry.name)))
            and _may_be(entry.is_file)
        )


def _nothing_found(data_root: str, folders: list[str], images: bool, left_out: Sequence[LeftOut]) -> str:
    looked_for = 'videos or images' if images else 'videos'
    message = f'no {looked_for} in {data_root} or its {len(folders)} direct subfolders'
    if left_out:
        kind = 'images: ' if any(is_image(group.example) for group in left_out) else ''
        message += f', but {kind}{"; ".join(map(str, left_out))}'
    return f'{message}; expected data_root/CLASS/clip.mp4 or data_root/clip.mp4, or give an ann_file'

"""What goes wrong with one clip and must not stop a run."""

from __future__ import annotations

import re


class NoReadableClipError(RuntimeError):
    """Neither a clip nor any of those tried in its place can be read: something is wrong with the whole dataset.

    Example:
        >>> from pvvae_plugin.datasets import ClipError, NoReadableClipError, SyntheticVideoDataset
        >>> class Broken(SyntheticVideoDataset):
        ...     def load_clip(self, info, rng):
        ...         raise ClipError(info['path'], 'disk is gone')
        >>> try:
        ...     Broken(length=3, clip_len=9, size=32)[0]
        ... except NoReadableClipError as error:
        ...     print('disk is gone' in str(error))
        True
    """


class ClipError(Exception):
    """One clip cannot be read. Datasets skip it, name it, and take another.

    Args:
        path: The file.
        reason: What is wrong with it, one line.

    Example:
        >>> from pvvae_plugin.datasets import ClipError, open_video
        >>> try:
        ...     open_video('missing.mp4')
        ... except ClipError as error:
        ...     print(error)
        missing.mp4: no such file
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f'{self.path}: {self.reason}'


def first_line(error: Exception) -> str:
    """The first line of a message, without decord's "[time] source:line: " in front."""
    lines = str(error).strip().splitlines()
    text = re.sub(r'^(\[[\d:]+\] \S+:\d+: )+', '', lines[0]) if lines else ''
    return text[:200] or type(error).__name__

"""Errors of clips that cannot be read."""

from __future__ import annotations

import re


class NoReadableClipError(RuntimeError):
    """Error if neither a clip nor any of its substitutes can be read, which points to a problem of the whole dataset.

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
    """Error if one clip cannot be read. Datasets log it, skip the clip and load another.

    Args:
        path: The file.
        reason: The reason, in one line.

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
    """Return the first line of an error's message, without decord's "[time] source:line: " prefix."""
    lines = str(error).strip().splitlines()
    text = re.sub(r'^(\[[\d:]+\] \S+:\d+: )+', '', lines[0]) if lines else ''
    return text[:200] or type(error).__name__

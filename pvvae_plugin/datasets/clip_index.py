"""Dataset index that carries the key of the sample's random draws."""

from __future__ import annotations


class ClipIndex(int):
    """Dataset index from a sampler, with the key of the sample's random draws and an optional size.

    It is an ``int``, so batch samplers and wrapper datasets handle it like any other index. ``+``, ``-`` and ``%``,
    which ``ConcatDataset`` and ``RepeatDataset`` use to find the inner index, keep the key.

    Args:
        index: Index into the dataset.
        draw_key: Key of all random draws of this sample (63 bits).
        size: Size in pixels that overrides the size of the pipeline's transforms. None keeps theirs.

    Example:
        >>> from pvvae_plugin.datasets import ClipIndex
        >>> index = ClipIndex(7, draw_key=123, size=64)
        >>> index == 7, index - 5  # an int that keeps the key
        (True, ClipIndex(2, draw_key=123, size=64))
    """

    draw_key: int
    size: int | None

    def __new__(cls, index: int, draw_key: int, size: int | None = None) -> ClipIndex:
        self = super().__new__(cls, index)
        self.draw_key = draw_key
        self.size = size
        return self

    def __getnewargs__(self) -> tuple[int, int, int | None]:
        return int(self), self.draw_key, self.size

    def __add__(self, other: int) -> ClipIndex:
        return ClipIndex(int(self) + int(other), self.draw_key, self.size)

    def __sub__(self, other: int) -> ClipIndex:
        return ClipIndex(int(self) - int(other), self.draw_key, self.size)

    def __mod__(self, other: int) -> ClipIndex:
        return ClipIndex(int(self) % int(other), self.draw_key, self.size)

    def __repr__(self) -> str:
        return f'ClipIndex({int(self)}, draw_key={self.draw_key}, size={self.size})'

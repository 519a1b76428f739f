"""A dataset index that carries the key of the draws to make for it."""

from __future__ import annotations


class ClipIndex(int):
    """An index that samplers hand to datasets, with the key of its draws and a size.

    It is an ``int``, so that batch samplers and wrapper datasets work with it as with any other index. The sums and
    remainders by which ``ConcatDataset`` and ``RepeatDataset`` find the index inside a part keep the key.

    Args:
        index: Index into the dataset.
        draw_key: Key of every random draw made for this sample (63 bits).
        size: Size in pixels that takes the place of the one in the pipeline's transforms; None leaves theirs.

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

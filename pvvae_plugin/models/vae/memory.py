"""What a causal network remembers of the frames before, so that a long video can pass a chunk at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# The last inputs of every temporal convolution, in the order they are met. Its size does not depend on the video's.
State = tuple[Tensor, ...]


class Memory:
    """The state of one pass: taken from the chunk before, and made anew for the next.

    Nothing is kept on modules: the state is passed in and handed back, so that several videos may pass a network in
    turn, and an error leaves nothing behind.

    Args:
        state: Of the chunk before; None for the first.

    Attributes:
        first (bool): Whether this is the first chunk of its video.
    """

    def __init__(self, state: State | None) -> None:
        self.first = state is None
        self._past: Sequence[Tensor] = state or ()
        self._next: list[Tensor] = []

    def extend(self, x: Tensor, taps: int, stride: int) -> Tensor:
        """Put in front of a chunk what a temporal convolution sees of the past: zeros, or the last inputs.

        Args:
            x: Input of the convolution, ``(N, C, T, H, W)``.
            taps: Its temporal taps.
            stride: Its temporal stride, of which ``T`` is a multiple after the first chunk.

        Raises:
            ValueError: If the state is of another network.
        """
        if self.first:
            x = F.pad(x, (0, 0, 0, 0, taps - 1, 0))
        else:
            place = len(self._next)
            if place >= len(self._past) or self._past[place].shape[1] != x.shape[1]:
                raise ValueError('the state is of another network than this one')
            x = torch.cat([self._past[place], x], dim=2)
        # A copy: a view would keep the whole chunk alive.
        self._next.append(x[:, :, x.shape[2] - (taps - stride) :].clone())
        return x

    def state(self) -> State:
        """For the next chunk.

        Raises:
            ValueError: If the state that was given is of another network.
        """
        if not self.first and len(self._past) != len(self._next):
            raise ValueError('the state is of another network than this one')
        return tuple(self._next)

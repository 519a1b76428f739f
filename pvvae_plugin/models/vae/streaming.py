"""What a causal network remembers of the frames before, so that a long video can pass a chunk at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

# The last inputs of every temporal convolution, in the order they are met. Its size does not depend on the video's.
State = tuple[Tensor, ...]


class FeatureCache:
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

    def past(self, x: Tensor, num_frames: int) -> Tensor:
        """What the next temporal convolution saw last, ``(N, C, P, H, W)``. Not for the first chunk.

        Args:
            x: What it is to see now, ``(N, C, T, H, W)``.
            num_frames: How many frames ``P`` it sees again.

        Raises:
            ValueError: If the state is of a network of another layout, or of other videos.
        """
        place = len(self._next)
        if place >= len(self._past) or self._past[place].shape[1:3] != (x.shape[1], num_frames):
            raise ValueError('the state is of another network than this one')
        past = self._past[place]
        if past.shape[:1] + past.shape[3:] != x.shape[:1] + x.shape[3:]:
            raise ValueError(
                'the state is of videos of another number or size: chunks have the batch, height and width of the first'
            )
        return past

    def keep(self, x: Tensor, num_frames: int) -> None:
        """Remember the last frames that a temporal convolution saw, zeros where there were fewer.

        Args:
            x: What it saw, ``(N, C, T, H, W)``.
            num_frames: How many of them it will see again.
        """
        missing = max(0, num_frames - x.shape[2])
        # A copy: a view would keep the whole chunk alive.
        last = x[:, :, x.shape[2] - (num_frames - missing) :]
        self._next.append(F.pad(last, (0, 0, 0, 0, missing, 0)) if missing else last.clone())

    def state(self) -> State:
        """For the next chunk.

        Raises:
            ValueError: If the state that was given is of another network.
        """
        if not self.first and len(self._past) != len(self._next):
            raise ValueError('the state is of another network than this one')
        return tuple(self._next)

"""Feature cache of a causal network, for processing a long video in chunks."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

# The last inputs of every temporal convolution, in execution order. The size is independent of the video length.
State = tuple[Tensor, ...]


class FeatureCache:
    """Cache for a single pass. It holds the state of the previous chunk and collects the state for the next one.

    Modules hold no state; it is passed in and returned. A network can therefore interleave several videos, and an
    error leaves no stale state.

    Args:
        state: State after the previous chunk; None for the first.

    Attributes:
        first (bool): True for the first chunk of a video.
    """

    def __init__(self, state: State | None) -> None:
        self.first = state is None
        self._past: Sequence[Tensor] = state or ()
        self._next: list[Tensor] = []

    def past(self, x: Tensor, num_frames: int) -> Tensor:
        """Return the last inputs of the next temporal convolution, ``(N, C, P, H, W)``. Not for the first chunk.

        Args:
            x: Its new input, ``(N, C, T, H, W)``.
            num_frames: Number of past frames ``P``.

        Raises:
            ValueError: If the state belongs to another network layout or to other videos.
        """
        place = len(self._next)
        if place >= len(self._past) or self._past[place].shape[1:3] != (x.shape[1], num_frames):
            raise ValueError('the state belongs to another network')
        past = self._past[place]
        if past.shape[:1] + past.shape[3:] != x.shape[:1] + x.shape[3:]:
            raise ValueError(
                'the state belongs to videos of another number or size: all chunks need the same N, H and W'
            )
        return past

    def keep(self, x: Tensor, num_frames: int) -> None:
        """Store the last input frames of a temporal convolution, zero-padded on the left if there are fewer.

        Args:
            x: Its input, ``(N, C, T, H, W)``.
            num_frames: Number of frames to store.
        """
        missing = max(0, num_frames - x.shape[2])
        # Copy, because a view would keep the whole chunk alive.
        last = x[:, :, x.shape[2] - (num_frames - missing) :]
        self._next.append(F.pad(last, (0, 0, 0, 0, missing, 0)) if missing else last.clone())

    def state(self) -> State:
        """Return the state for the next chunk.

        Raises:
            ValueError: If the given state belongs to another network.
        """
        if not self.first and len(self._past) != len(self._next):
            raise ValueError('the state belongs to another network')
        return tuple(self._next)

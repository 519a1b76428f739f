"""Tiled encoding and decoding of large videos without gradients: the same result in less memory.

The result is exact. Clips are independent. A chunk needs the cached features of earlier frames. A tile needs its
neighborhood up to the receptive field of the high-resolution levels. Only these levels, which need the most memory,
are tiled. The other levels, including attention, see whole frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pvvae_plugin.temporal import groups_to_frames

from .coders import Decoder, Encoder
from .streaming import FeatureCache, State

Part = Callable[[Tensor, FeatureCache | None], Tensor]


class TiledState(NamedTuple):
    """State of a tiled pass after a chunk: one state per tile, and one for the levels that see whole frames."""

    tiles: tuple[State, ...]
    low_levels: State


class Layout(NamedTuple):
    """Sizes that determine how a video is split.

    Attributes:
        pixels_at_once: Maximum pixels (clips x frames x height x width) per pass.
        temporal_ratio: ``p_t``.
        spatial_ratio: ``p_s``.
    """

    pixels_at_once: int
    temporal_ratio: int
    spatial_ratio: int

    def pixels(self, latents: Tensor) -> int:
        """Return the number of video pixels per clip of latents ``(N, C, t, h, w)``."""
        groups, h, w = latents.shape[2:]
        return groups_to_frames(groups, self.temporal_ratio) * h * w * self.spatial_ratio**2

    def needs_tiles(self, size: Sequence[int]) -> bool:
        """Return True if one group of frames of this height and width exceeds ``pixels_at_once``."""
        return self.temporal_ratio * math.prod(size) > self.pixels_at_once


def check_pixels(pixels_at_once: int) -> None:
    """Raise ValueError unless ``pixels_at_once`` is a positive integer."""
    if not isinstance(pixels_at_once, int) or pixels_at_once < 1:
        raise ValueError(f'pixels_at_once must be a positive integer, got {pixels_at_once!r}')


def encode_in_parts(encoder: Encoder, layout: Layout, video: Tensor) -> Tensor:
    """Return moments ``(N, 2 C, t, h, w)`` of clips ``(N, 3, T, H, W)``, in parts if they exceed the layout."""
    at_once = layout.pixels_at_once // math.prod(video.shape[2:])
    return _by_clips(partial(_encode_few, encoder, layout), video, at_once)


def _encode_few(encoder: Encoder, layout: Layout, video: Tensor) -> Tensor:
    pixels, ratio = layout.pixels_at_once, layout.temporal_ratio
    if video[:, 0].numel() <= pixels:
        return encoder(video)
    group = ratio * video.shape[3] * video.shape[4]  # a single clip at this point
    if not layout.needs_tiles(video.shape[3:]):
        frames = pixels // group * ratio
        return in_chunks(encoder, video, frames - ratio + 1, frames)[0]
    return encode_tiled(encoder, layout, video, None)[0]


def encode_tiled(
    encoder: Encoder, layout: Layout, video: Tensor, state: TiledState | None
) -> tuple[Tensor, TiledState]:
    """Encode the next frames with tiled high levels; return their moments and the new state."""
    ratio = layout.temporal_ratio
    first = 1 if state is None else ratio
    tiles = _Tiles(encoder.high_levels, first, ratio, state)
    side = math.isqrt(layout.pixels_at_once // ratio)
    features = in_tiles(tiles, video, side // encoder.unit, encoder.halo, zoom_in=encoder.unit, zoom_out=1)
    frames = ratio // encoder.high_time
    first = 1 if state is None else frames
    moments, low = in_chunks(encoder.low_levels, features, first, frames, state and state.low_levels)
    return moments, TiledState(tuple(tiles.states), low)


def decode_in_parts(decoder: Decoder, layout: Layout, latents: Tensor) -> Tensor:
    """Return videos ``(N, 3, T, H, W)`` of latents ``(N, C, t, h, w)``, in parts if they exceed the layout."""
    return _by_clips(partial(_decode_few, decoder, layout), latents, layout.pixels_at_once // layout.pixels(latents))


def _decode_few(decoder: Decoder, layout: Layout, latents: Tensor) -> Tensor:
    if len(latents) * layout.pixels(latents) <= layout.pixels_at_once:
        return decoder(latents)
    height, width = (side * layout.spatial_ratio for side in latents.shape[3:])
    group = layout.temporal_ratio * height * width  # a single clip at this point
    if not layout.needs_tiles((height, width)):
        count = layout.pixels_at_once // group
        return in_chunks(decoder, latents, count, count)[0]
    return decode_tiled(decoder, layout, latents, None)[0]


def decode_tiled(
    decoder: Decoder, layout: Layout, latents: Tensor, state: TiledState | None
) -> tuple[Tensor, TiledState]:
    """Decode the next latents with tiled high levels; return their frames and the new state."""
    ratio = layout.temporal_ratio
    features, low = in_chunks(decoder.low_levels, latents, 1, 1, state and state.low_levels)
    frames = ratio // decoder.high_time
    tiles = _Tiles(decoder.high_levels, 1 if state is None else frames, frames, state)
    side = math.isqrt(layout.pixels_at_once // ratio)
    video = in_tiles(tiles, features, side // decoder.unit, decoder.halo, zoom_in=1, zoom_out=decoder.unit)
    return video, TiledState(tuple(tiles.states), low)


class _Tiles:
    """Callable that processes one tile after another in chunks of frames, with one cache per tile.

    Args:
        part: Function applied to each chunk.
        first: Frames in the first chunk.
        others: Frames in each later chunk.
        state: State after the previous frames.

    Attributes:
        states (list[State]): New states of the tiles processed so far.
    """

    def __init__(self, part: Part, first: int, others: int, state: TiledState | None) -> None:
        self.part, self.first, self.others, self.before = part, first, others, state
        self.states: list[State] = []

    def __call__(self, tile: Tensor) -> Tensor:
        place = len(self.states)
        if self.before is not None and place >= len(self.before.tiles):
            raise ValueError('the state has other tiles: keep pixels_at_once and the frame size fixed between chunks')
        state = self.before and self.before.tiles[place]
        out, state = in_chunks(self.part, tile, self.first, self.others, state)
        self.states.append(state)
        return out


def _by_clips(part: Callable[[Tensor], Tensor], x: Tensor, at_once: int) -> Tensor:
    outputs = [part(clips) for clips in x.split(max(1, at_once))]
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def in_chunks(part: Part, x: Tensor, first: int, others: int, state: State | None = None) -> tuple[Tensor, State]:
    """Process the first ``first`` frames of ``x (N, C, T, H, W)``, then ``others`` at a time.

    Returns:
        The concatenated outputs, and the state for later frames.
    """
    outputs = []
    for chunk in x.split([min(first, x.shape[2]), *_lengths(x.shape[2] - first, others)], dim=2):
        cache = FeatureCache(state)
        outputs.append(part(chunk, cache))
        state = cache.state()
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0], state


def _lengths(total: int, step: int) -> list[int]:
    return [min(step, total - start) for start in range(0, max(total, 0), step)]


def spans(length: int, at_most: int, halo: int) -> Iterator[tuple[slice, slice]]:
    """Split a side into pieces of nearly equal length.

    Args:
        length: Length of the side.
        at_most: Maximum length of a piece including its halo; at least four times the halo is used, because a smaller
            piece would be mostly context.
        halo: Context on both sides of a piece, clipped at the ends of the side.

    Yields:
        The piece, and the piece with its context.
    """
    pieces = math.ceil(length / max(1, at_most - 2 * halo, 2 * halo)) if length > at_most else 1
    edges = [length * i // pieces for i in range(pieces + 1)]
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        yield slice(start, end), slice(max(0, start - halo), min(length, end + halo))


def in_tiles(
    part: Callable[[Tensor], Tensor], x: Tensor, at_most: int, halo: int, zoom_in: int, zoom_out: int
) -> Tensor:
    """Process tiles of ``x (N, C, T, H, W)`` with their context and assemble the results.

    Args:
        part: Function applied to each tile. It maps ``zoom_in`` positions along a side to ``zoom_out``.
        x: The whole input.
        at_most: Side of a tile with its context, in units of ``zoom_in`` positions.
        halo: Context on each side, in the same units.
        zoom_in: Positions of ``x`` per unit.
        zoom_out: Positions of the result per unit.
    """
    height, width = x.shape[3] // zoom_in, x.shape[4] // zoom_in
    whole: Tensor | None = None
    for rows, seen_rows in spans(height, at_most, halo):
        for columns, seen_columns in spans(width, at_most, halo):
            out = part(x[..., _scaled(seen_rows, zoom_in), _scaled(seen_columns, zoom_in)])
            if whole is None:
                n, c, t = out.shape[:3]
                whole = out.new_empty(n, t, height * zoom_out, width * zoom_out, c).permute(0, 4, 1, 2, 3)
            inner = (_scaled(_within(rows, seen_rows), zoom_out), _scaled(_within(columns, seen_columns), zoom_out))
            whole[..., _scaled(rows, zoom_out), _scaled(columns, zoom_out)] = out[..., inner[0], inner[1]]
    return whole


def _scaled(span: slice, factor: int) -> slice:
    return slice(span.start * factor, span.stop * factor)


def _within(span: slice, outer: slice) -> slice:
    return slice(span.start - outer.start, span.stop - outer.start)

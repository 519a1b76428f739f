"""A large video in parts, without gradients: the same result in less memory.

Nothing is approximate. Clips do not see one another. Of the frames before, a chunk needs what ``memory`` keeps. Of the
places beside it, a tile needs as much as the convolutions of the high-resolution levels reach; only these levels, which
need the memory, are tiled, while the others, attention among them, see whole frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pvvae_plugin.temporal import groups_to_frames

from .memory import Memory, State

if TYPE_CHECKING:
    from .predictive_vae import PredictiveVAE

Part = Callable[[Tensor, Memory | None], Tensor]


def encode_in_parts(vae: PredictiveVAE, video: Tensor) -> Tensor:
    """Moments ``(N, 2 C, t, h, w)`` of clips ``(N, 3, T, H, W)``, in parts where ``vae.pixels_at_once`` wants it."""
    return _by_clips(partial(_encode_few, vae), video, vae.pixels_at_once // math.prod(video.shape[2:]))


def _encode_few(vae: PredictiveVAE, video: Tensor) -> Tensor:
    encoder, ratio = vae.encoder, vae.temporal_ratio
    if video[:, 0].numel() <= vae.pixels_at_once:
        return encoder(video)
    group = ratio * video.shape[3] * video.shape[4]  # of the one clip that is left
    if group <= vae.pixels_at_once:
        frames = vae.pixels_at_once // group * ratio
        return in_chunks(encoder, video, frames - ratio + 1, frames)
    side = math.isqrt(vae.pixels_at_once // ratio)
    features = in_tiles(
        lambda tile: in_chunks(encoder.high_levels, tile, 1, ratio),
        video,
        side // encoder.unit,
        encoder.halo,
        zoom_in=encoder.unit,
        zoom_out=1,
    )
    frames = ratio // encoder.high_time
    return in_chunks(encoder.low_levels, features, 1, frames)


def decode_in_parts(vae: PredictiveVAE, latents: Tensor) -> Tensor:
    """Videos ``(N, 3, T, H, W)`` of latents ``(N, C, t, h, w)``, in parts where ``vae.pixels_at_once`` wants it."""
    return _by_clips(partial(_decode_few, vae), latents, vae.pixels_at_once // _pixels(vae, latents))


def _pixels(vae: PredictiveVAE, latents: Tensor) -> int:
    """Of the video of one clip's latents."""
    groups, h, w = latents.shape[2:]
    return groups_to_frames(groups, vae.temporal_ratio) * h * w * vae.spatial_ratio**2


def _decode_few(vae: PredictiveVAE, latents: Tensor) -> Tensor:
    decoder, ratio = vae.decoder, vae.temporal_ratio
    if len(latents) * _pixels(vae, latents) <= vae.pixels_at_once:
        return decoder(latents)
    group = ratio * latents.shape[3] * latents.shape[4] * vae.spatial_ratio**2  # of the one clip that is left
    if group <= vae.pixels_at_once:
        count = vae.pixels_at_once // group
        return in_chunks(decoder, latents, count, count)
    features = in_chunks(decoder.low_levels, latents, 1, 1)
    side, frames = math.isqrt(vae.pixels_at_once // ratio), ratio // decoder.high_time
    return in_tiles(
        lambda tile: in_chunks(decoder.high_levels, tile, 1, frames),
        features,
        side // decoder.unit,
        decoder.halo,
        zoom_in=1,
        zoom_out=decoder.unit,
    )


def _by_clips(part: Callable[[Tensor], Tensor], x: Tensor, at_once: int) -> Tensor:
    outputs = [part(clips) for clips in x.split(max(1, at_once))]
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def in_chunks(part: Part, x: Tensor, first: int, others: int) -> Tensor:
    """Pass ``first`` frames of ``x (N, C, T, H, W)``, then ``others`` at a time, and join what comes out."""
    state: State | None = None
    outputs = []
    for chunk in x.split([min(first, x.shape[2]), *_lengths(x.shape[2] - first, others)], dim=2):
        memory = Memory(state)
        outputs.append(part(chunk, memory))
        state = memory.state()
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


def _lengths(total: int, step: int) -> list[int]:
    return [min(step, total - start) for start in range(0, max(total, 0), step)]


def spans(length: int, at_most: int, halo: int) -> Iterator[tuple[slice, slice]]:
    """Cut a side into pieces of nearly equal length.

    Args:
        length: Of the side.
        at_most: Length of a piece with its halo.
        halo: Context wanted on both sides of a piece, where the side goes on.

    Yields:
        The piece, and the piece with its context.
    """
    pieces = math.ceil(length / max(1, at_most - 2 * halo)) if length > at_most else 1
    edges = [length * i // pieces for i in range(pieces + 1)]
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        yield slice(start, end), slice(max(0, start - halo), min(length, end + halo))


def in_tiles(
    part: Callable[[Tensor], Tensor], x: Tensor, at_most: int, halo: int, zoom_in: int, zoom_out: int
) -> Tensor:
    """Pass tiles of ``x (N, C, T, H, W)`` with their context, and put what comes out together.

    Args:
        part: What to pass them through, which makes ``zoom_out`` places of ``zoom_in``.
        x: The whole.
        at_most: Side of a tile with its context, in units of ``zoom_in`` places.
        halo: Context on each side, in the same units.
        zoom_in: Places of ``x`` in a unit.
        zoom_out: Places of the result in a unit.
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

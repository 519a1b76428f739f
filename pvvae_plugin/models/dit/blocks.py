"""Parts of a diffusion transformer: adaLN-Zero blocks, embeddings of time, and of places.

Tokens are ``(N, A, B, D)``: a clip's frames and places, in either order. Conditions are ``(N, A', B', D)``, with sides
of 1 where they are the same for all, so that each frame may have a time of its own.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]


def make_norm(kind: str, width: int) -> nn.Module:
    """A norm over the last axis without weights of its own: adaLN scales and shifts after it."""
    if kind == 'layer':
        return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
    if kind == 'rms':
        return nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
    raise ValueError(f"norm must be 'layer' or 'rms', got {kind!r}")


class HeadNorm(nn.RMSNorm):
    """RMS norm whose weight follows its input's type: under autocast they differ, and no fused kernel takes both."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Multi-head self-attention over sequences ``(B, L, D)``.

    Args:
        width: ``D``.
        heads: Number of heads.
        qk_norm: RMS norm of each head's queries and keys, which keeps attention logits bounded (SD3, section 5.3.2).
    """

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm = HeadNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = HeadNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        b, length, width = x.shape
        qkv = self.qkv(x).view(b, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, L, D / heads) each, without a copy
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        x = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(x.transpose(1, 2).reshape(b, length, width))


class FeedForward(nn.Module):
    """Two linear maps around a GELU, or SwiGLU (Shazeer, 2020) with about as many weights."""

    def __init__(self, width: int, swiglu: bool) -> None:
        super().__init__()
        self.swiglu = swiglu
        # Three matrices instead of two: 2/3 of the hidden width, rounded up to what matrix units like.
        hidden = math.ceil(8 * width / 3 / 32) * 32 if swiglu else 4 * width
        self.up = nn.Linear(width, 2 * hidden if swiglu else hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.swiglu:
            gate, x = x.chunk(2, dim=-1)
            return self.down(F.silu(gate) * x)
        return self.down(F.gelu(x, approximate='tanh'))


class Block(nn.Module):
    """Attention and feed-forward, each modulated and gated by the condition: DiT's adaLN-Zero.

    Args:
        width: ``D``.
        heads: Number of heads.
        joint: Attend over all ``A * B`` tokens of a clip; otherwise over the ``B`` tokens of each of the ``A`` rows.
        norm: ``'layer'`` or ``'rms'``.
        qk_norm: See :class:`Attention`.
        swiglu: See :class:`FeedForward`.
    """

    def __init__(self, width: int, heads: int, joint: bool, norm: str, qk_norm: bool, swiglu: bool) -> None:
        super().__init__()
        self.joint = joint
        self.norm = make_norm(norm, width)  # it has no weights: one serves both halves
        self.attention = Attention(width, heads, qk_norm)
        self.feed_forward = FeedForward(width, swiglu)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, rotation: Rotation | None) -> Tensor:
        """``(N, A, B, D)`` to the same; ``condition (N, A', B', D)`` is taken after its SiLU."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition).chunk(6, dim=-1)
        h = self.norm(x) * (1 + scale_a) + shift_a
        h = h.flatten(1, 2) if self.joint else h.flatten(0, 1)  # (N, A * B, D) or (N * A, B, D)
        x = x + gate_a * self.attention(h, rotation).view(x.shape)
        h = self.norm(x) * (1 + scale_f) + shift_f
        return x + gate_f * self.feed_forward(h)


class FinalLayer(nn.Module):
    """Modulated norm and a linear map to the latents' channels."""

    def __init__(self, width: int, channels: int, norm: str) -> None:
        super().__init__()
        self.norm = make_norm(norm, width)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """``(N, A, B, D)`` to ``(N, A, B, C)``."""
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        return self.out(self.norm(x) * (1 + scale) + shift)


class TimeEmbedding(nn.Module):
    """Times in [0, 1] to vectors: 256 cosines and sines of ``1000 * t``, then two linear maps (DiT).

    Computed in float32 whatever the autocast: bfloat16 cannot tell 1000 times apart.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        """``(...)`` to ``(..., D)``."""
        with torch.autocast(times.device.type, enabled=False):
            return self.mlp(sin_cos(1000.0 * times, 256).to(self.mlp[0].weight.dtype))


def sin_cos(values: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of ``values`` at ``width / 2`` frequencies from 1 down to almost 1e-4: ``(..., width)``."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    angles = values[..., None] * _frequencies(width // 2, values)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _frequencies(count: int, like: Tensor) -> Tensor:
    return 1e4 ** -(torch.arange(count, dtype=like.dtype, device=like.device) / count)


# Both tables are kept by size and device, not in a model: no state dict holds them, and any grid is served. Made under
# inference mode they could not take part in training later, hence the exception from it. Float64 is for the CPU, not
# every device has it.
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def position_embedding(grid: tuple[int, int, int], width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Fixed embedding of each token's frame and place, ``(t, h * w, D)``.

    As in Latte, the sum of one of the frame, of full width, and one of the place, half of it for the row and half for
    the column. Latte adds the first only before its first temporal block; here both are there from the start.
    """
    t, y, x = (torch.arange(length, dtype=torch.float64) for length in grid)
    place = torch.cat(
        [
            sin_cos(y, width // 2)[:, None].expand(-1, len(x), -1),
            sin_cos(x, width // 2)[None].expand(len(y), -1, -1),
        ],
        dim=-1,
    )  # (h, w, D)
    return (sin_cos(t, width)[:, None] + place.flatten(0, 1)).to(dtype).to(device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def rotary_table(grid: tuple[int, int, int], head_width: int, device: torch.device, dtype: torch.dtype) -> Rotation:
    """Cosines and sines of 3D axial rotary embedding, each ``(t, h * w, head_width / 2)``.

    A third of the pairs of a head turns with the row, a third with the column, the rest with the frame (RoPE, Su et
    al. 2021, for each axis; the shares are ours).
    """
    pairs = head_width // 2
    shares = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    places = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing='ij')
    angles = [place[..., None] * _frequencies(n, place) for place, n in zip(places, shares, strict=True)]
    table = torch.cat(angles, dim=-1).flatten(1, 2)  # (t, h * w, pairs)
    return table.cos().to(dtype).to(device), table.sin().to(dtype).to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + d / 2) of ``x (..., L, d)`` by the angles whose ``cos`` and ``sin`` are ``(L, d / 2)``."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

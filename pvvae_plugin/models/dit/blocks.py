"""Parts of a diffusion transformer: adaLN-Zero blocks, embeddings of time, and of places.

Tokens are ``(t, N, h * w, D)``: with the clips in the middle, the places of a frame and the frames of a place are both
there without a copy. Only for attention over whole clips they are ``(N, t, h * w, D)``. Conditions are of the same form
with sides of 1 where they are the same for all, so that each frame may have a time of its own.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
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
    """Multi-head self-attention over sequences in tokens ``(A, B, D)``.

    Args:
        width: ``D``.
        num_heads: Number of heads.
        qk_norm: RMS norm of each head's queries and keys, which keeps attention logits bounded (SD3, section 5.3.2).
    """

    def __init__(self, width: int, num_heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm = HeadNorm(width // num_heads, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = HeadNorm(width // num_heads, eps=1e-6) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None, along: int) -> Tensor:
        """``(A, B, D)`` to the same, the sequences lying along axis ``along``, 0 or 1."""
        a, b, width = x.shape
        qkv = self.qkv(x).view(a, b, 3, self.num_heads, width // self.num_heads)
        order = (1, 2, 0, 3) if along == 0 else (0, 2, 1, 3)
        q, k, v = (part.permute(order) for part in qkv.unbind(2))  # (S, heads, L, d) each, without a copy
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        x = attend(q.to(v.dtype), k.to(v.dtype), v)
        x = self.proj(x.transpose(1, 2).flatten(2))  # (S, L, D), the order in which attention leaves it
        return x.transpose(0, 1) if along == 0 else x


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of many sequences, each ``(S, num_heads, L, d)``.

    In half precision fused kernels work in tiles of 64 rows or more, nearly all of it empty for five frames. Plain
    products took 0.4 of their time there, forward and backward (on a CPU in bfloat16; in float32 they took longer).
    """
    if q.shape[-2] > 16 or q.dtype not in (torch.bfloat16, torch.float16):
        return F.scaled_dot_product_attention(q, k, v)
    return attend_plainly(q, k, v)


def attend_plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same by products that keep every weight."""
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v


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


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x * (1 + scale) + shift`` in one pass."""
    return torch.addcmul(shift, x, 1 + scale)


def add_gated(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """``x + gate * y`` in one pass, but under autocast, which would first make a copy of ``y`` in the type of ``x``."""
    return torch.addcmul(x, gate, y) if x.dtype == y.dtype else x + gate * y


class Block(nn.Module):
    """Attention and feed-forward, each modulated and gated by the condition: DiT's adaLN-Zero.

    Args:
        width: ``D``.
        num_heads: Number of heads.
        over: What attends to one another: the ``'places'`` of a frame, the ``'frames'`` of a place, or the whole
            ``'clip'``.
        norm: ``'layer'`` or ``'rms'``.
        qk_norm: See :class:`Attention`.
        swiglu: See :class:`FeedForward`.
    """

    def __init__(self, width: int, num_heads: int, over: str, norm: str, qk_norm: bool, swiglu: bool) -> None:
        super().__init__()
        self.over = over
        self.norm = make_norm(norm, width)  # it has no weights: one serves both halves
        self.attention = Attention(width, num_heads, qk_norm)
        self.feed_forward = FeedForward(width, swiglu)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, rotation: Rotation | None) -> Tensor:
        """Tokens to the same; ``condition`` is taken after its SiLU."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition).chunk(6, dim=-1)
        h = modulate(self.norm(x), shift_a, scale_a)
        h = h.flatten(0, 1) if self.over == 'places' else h.flatten(1, 2)  # sequences along axis 1, or 0 for 'frames'
        h = self.attention(h, rotation, along=0 if self.over == 'frames' else 1)
        x = add_gated(x, gate_a, h.view(x.shape))
        h = modulate(self.norm(x), shift_f, scale_f)
        return add_gated(x, gate_f, self.feed_forward(h))


class FinalLayer(nn.Module):
    """Modulated norm and a linear map to the latents' channels."""

    def __init__(self, width: int, channels: int, norm: str) -> None:
        super().__init__()
        self.norm = make_norm(norm, width)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens to the same with ``C`` channels."""
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        return self.out(modulate(self.norm(x), shift, scale))


class TimeEmbedding(nn.Module):
    """Times in [0, 1] to vectors: 256 cosines and sines of ``1000 * t``, then two linear maps (DiT).

    Computed in float32 whatever the autocast: bfloat16 cannot tell 1000 times apart.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        """``(...)`` to ``(..., D)``."""
        # The meta device, on which costs are counted, has no autocast to switch off.
        with nullcontext() if times.is_meta else torch.autocast(times.device.type, enabled=False):
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

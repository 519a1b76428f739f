"""Building blocks of the diffusion transformer: adaLN-Zero blocks, time and position embeddings.

Tokens are ``(t, N, h * w, D)``. This order gives spatial and temporal sequences without a copy. Joint attention uses
``(N, t, h * w, D)`` instead. Conditions broadcast against tokens, so each frame may have a different time.
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
    """Build a norm over the last axis without weights; adaLN applies scale and shift."""
    if kind == 'layer':
        return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
    if kind == 'rms':
        return nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
    raise ValueError(f"norm must be 'layer' or 'rms', got {kind!r}")


class HeadNorm(nn.RMSNorm):
    """RMS norm that casts its weight to the dtype of its input, because fused kernels reject mixed dtypes."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Multi-head self-attention along one of the first two axes of tokens ``(A, B, D)``.

    Args:
        width: ``D``.
        num_heads: Number of heads.
        qk_norm: Apply RMS norm to queries and keys per head, which bounds the attention logits (SD3, section 5.3.2).
    """

    def __init__(self, width: int, num_heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm = HeadNorm(width // num_heads, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = HeadNorm(width // num_heads, eps=1e-6) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation | None, along: int) -> Tensor:
        """Attend along axis ``along`` (0 or 1) of tokens ``(A, B, D)``; return the same shape."""
        a, b, width = x.shape
        qkv = self.qkv(x).view(a, b, 3, self.num_heads, width // self.num_heads)
        order = (1, 2, 0, 3) if along == 0 else (0, 2, 1, 3)
        q, k, v = (part.permute(order) for part in qkv.unbind(2))  # (S, heads, L, d) each, without a copy
        q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        x = attend(q.to(v.dtype), k.to(v.dtype), v)
        x = self.proj(x.transpose(1, 2).flatten(2))  # (S, L, D), the memory order of the attention output
        return x.transpose(0, 1) if along == 0 else x


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute attention of ``S`` sequences; ``q``, ``k`` and ``v`` are ``(S, num_heads, L, d)``.

    Fused half-precision kernels use tiles of at least 64 rows, which are mostly empty for five frames. Plain matrix
    products took 0.4 times as long, forward and backward (on a CPU in bfloat16; they were slower in float32).
    """
    if q.shape[-2] > 16 or q.dtype not in (torch.bfloat16, torch.float16):
        return F.scaled_dot_product_attention(q, k, v)
    return attend_plainly(q, k, v)


def attend_plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute :func:`attend` with plain matrix products."""
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v


class FeedForward(nn.Module):
    """Feed-forward layer with GELU, or with SwiGLU (Shazeer, 2020) and about as many weights."""

    def __init__(self, width: int, swiglu: bool) -> None:
        super().__init__()
        self.swiglu = swiglu
        # Three matrices instead of two: use 2/3 of the hidden width, rounded up to a multiple of 32 for tensor cores.
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
    """Return ``x * (1 + scale) + shift`` in one fused operation."""
    return torch.addcmul(shift, x, 1 + scale)


def add_gated(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """Return ``x + gate * y``. It is fused only if the dtypes match, because autocast would copy ``y`` first."""
    return torch.addcmul(x, gate, y) if x.dtype == y.dtype else x + gate * y


class Block(nn.Module):
    """Transformer block with DiT's adaLN-Zero: attention and feed-forward, modulated and gated by the condition.

    Args:
        width: ``D``.
        num_heads: Number of heads.
        over: Axis of attention: the ``'places'`` (positions) of a frame, the ``'frames'`` of a position, or the whole
            ``'clip'``.
        norm: ``'layer'`` or ``'rms'``.
        qk_norm: See :class:`Attention`.
        swiglu: See :class:`FeedForward`.
    """

    def __init__(self, width: int, num_heads: int, over: str, norm: str, qk_norm: bool, swiglu: bool) -> None:
        super().__init__()
        self.over = over
        self.norm = make_norm(norm, width)  # shared by both halves, since it has no weights
        self.attention = Attention(width, num_heads, qk_norm)
        self.feed_forward = FeedForward(width, swiglu)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor, rotation: Rotation | None) -> Tensor:
        """Transform tokens; ``condition`` already has SiLU applied."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(condition).chunk(6, dim=-1)
        h = modulate(self.norm(x), shift_a, scale_a)
        h = h.flatten(0, 1) if self.over == 'places' else h.flatten(1, 2)  # sequences along axis 1, or 0 for 'frames'
        h = self.attention(h, rotation, along=0 if self.over == 'frames' else 1)
        x = add_gated(x, gate_a, h.view(x.shape))
        h = modulate(self.norm(x), shift_f, scale_f)
        return add_gated(x, gate_f, self.feed_forward(h))


class FinalLayer(nn.Module):
    """Modulated norm followed by a linear layer to the latent channels."""

    def __init__(self, width: int, channels: int, norm: str) -> None:
        super().__init__()
        self.norm = make_norm(norm, width)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map tokens of width ``D`` to ``C`` channels."""
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        return self.out(modulate(self.norm(x), shift, scale))


class TimeEmbedding(nn.Module):
    """Embedding of times in [0, 1]: 256 cosines and sines of ``1000 * t``, then two linear layers (DiT).

    Computed in float32 even under autocast, because bfloat16 cannot represent 1000 distinct times.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        """Embed times ``(...)`` as ``(..., D)``."""
        # The meta device, used for cost counting, does not support autocast.
        with nullcontext() if times.is_meta else torch.autocast(times.device.type, enabled=False):
            return self.mlp(sin_cos(1000.0 * times, 256).to(self.mlp[0].weight.dtype))


def sin_cos(values: Tensor, width: int) -> Tensor:
    """Return cosines, then sines, of ``values`` at ``width / 2`` frequencies from 1 to about 1e-4: ``(..., width)``."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    angles = values[..., None] * _frequencies(width // 2, values)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _frequencies(count: int, like: Tensor) -> Tensor:
    return 1e4 ** -(torch.arange(count, dtype=like.dtype, device=like.device) / count)


# Both tables are cached by size and device, outside any model, so they stay out of state dicts and work for any grid.
# Tensors created in inference mode cannot be used in training later, so it is disabled here. Float64 is computed on the
# CPU because some devices lack it.
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def position_embedding(grid: tuple[int, int, int], width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return fixed embeddings of frame and position per token, ``(t, h * w, D)``.

    As in Latte, it is the sum of a frame embedding and a position embedding (half for the row, half for the column).
    Latte adds the frame embedding before its first temporal block; here both are added at the input.
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
    """Return cosines and sines of a 3D axial rotary embedding, each ``(t, h * w, head_width / 2)``.

    A third of the pairs of a head rotates with the row, a third with the column, and the rest with the frame (RoPE, Su
    et al. 2021, per axis; the split is ours).
    """
    pairs = head_width // 2
    shares = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    places = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing='ij')
    angles = [place[..., None] * _frequencies(n, place) for place, n in zip(places, shares, strict=True)]
    table = torch.cat(angles, dim=-1).flatten(1, 2)  # (t, h * w, pairs)
    return table.cos().to(dtype).to(device), table.sin().to(dtype).to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + d / 2) of ``x (..., L, d)`` by angles given as ``cos`` and ``sin``, ``(L, d / 2)``."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

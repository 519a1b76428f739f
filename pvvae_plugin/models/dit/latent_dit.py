"""LatentDiT: transformer that learns the velocity of video latents (paper, generation section)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pvvae_plugin.registry import MODELS
from pvvae_plugin.renaming import renamed_arguments

from .blocks import Block, FinalLayer, Rotation, TimeEmbedding, position_embedding, rotary_table

# size -> depth, hidden size, heads, as in DiT and Latte
PRESETS = {'S': (12, 384, 6), 'B': (12, 768, 12), 'L': (24, 1024, 16), 'XL': (28, 1152, 16)}


@MODELS.register_module()
class LatentDiT(BaseModule):
    """Video diffusion transformer with one token per latent position.

    The layout is Latte's (Ma et al., 2024) without the patchify step. Blocks come in pairs: the first attends within
    frames, the second across frames at the same position. DiT's adaLN-Zero conditions all blocks (Peebles & Xie,
    2023). A new model returns zeros. Any latent size is accepted at run time.

    The model does not drop classes itself. During training, the caller passes :attr:`null_label` for hidden classes.

    Args:
        latent_channels: Channels ``C`` of the input and output latents.
        num_classes: Number of classes; None for an unconditional model.
        size: Preset ``'S'``, ``'B'``, ``'L'`` or ``'XL'`` (the paper's depth) for the next three arguments.
        depth: Number of blocks, overrides the preset; must be even for factorized attention.
        hidden_size: Width ``D`` of the tokens, overrides the preset.
        num_heads: Number of attention heads, overrides the preset.
        attention: ``'factorized'`` (see above), or ``'joint'``: every block attends over all ``t * h * w`` tokens.
        norm: ``'layer'`` as in DiT, or ``'rms'``.
        qk_norm: Apply RMS norm to queries and keys.
        rope: Use 3D axial rotary embeddings instead of fixed sine-cosine embeddings at the input.
        swiglu: Use SwiGLU instead of GELU in the feed-forward layers.
        gradient_checkpointing: Recompute activations in the backward pass, trading an extra forward pass for memory.
        init_cfg: MMEngine initialization config.

    Attributes:
        null_label (int | None): Label for "no class"; None for an unconditional model.

    Raises:
        ValueError: If an argument is unknown or the sizes are not divisible as required.

    Example:
        >>> from pvvae_plugin.registry import MODELS
        >>> head = MODELS.build(dict(type='LatentDiT', latent_channels=4, depth=2, hidden_size=16, num_heads=2))
        >>> latents, times = torch.randn(2, 4, 3, 2, 2), torch.tensor([0.0, 0.5])
        >>> velocity = head(latents, times)
        >>> velocity.shape, velocity.abs().max().item()  # a new model returns zeros
        (torch.Size([2, 4, 3, 2, 2]), 0.0)
    """

    @renamed_arguments(width='hidden_size', heads='num_heads')
    def __init__(
        self,
        latent_channels: int = 64,
        num_classes: int | None = None,
        size: str = 'XL',
        depth: int | None = None,
        hidden_size: int | None = None,
        num_heads: int | None = None,
        attention: str = 'factorized',
        norm: str = 'layer',
        qk_norm: bool = False,
        rope: bool = False,
        swiglu: bool = False,
        gradient_checkpointing: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if size not in PRESETS:
            raise ValueError(f'size must be one of {", ".join(PRESETS)}, got {size!r}')
        depth, hidden_size, num_heads = (
            given if given is not None else preset
            for given, preset in zip((depth, hidden_size, num_heads), PRESETS[size], strict=True)
        )
        _check_shape(depth, hidden_size, num_heads, attention, rope)
        if num_classes is not None and num_classes < 1:
            raise ValueError(f'num_classes must be at least 1, or None for an unconditional model, got {num_classes}')
        self.latent_channels, self.num_classes = latent_channels, num_classes
        self.depth, self.hidden_size, self.num_heads = depth, hidden_size, num_heads
        self.joint, self.rope = attention == 'joint', rope
        self.gradient_checkpointing = gradient_checkpointing
        self.embed = nn.Linear(latent_channels, hidden_size)
        self.time_embedding = TimeEmbedding(hidden_size)
        self.class_embedding = None if num_classes is None else nn.Embedding(num_classes + 1, hidden_size)
        kinds = ('clip', 'clip') if self.joint else ('places', 'frames')
        self.blocks = nn.ModuleList(
            Block(hidden_size, num_heads, kinds[i % 2], norm, qk_norm, swiglu) for i in range(depth)
        )
        self.final = FinalLayer(hidden_size, latent_channels, norm)
        self._init_parameters()

    def _init_parameters(self) -> None:
        """Initialize as in DiT: every block starts as the identity, and the output starts at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for weight in (self.time_embedding.mlp[0].weight, self.time_embedding.mlp[2].weight):
            nn.init.normal_(weight, std=0.02)
        if self.class_embedding is not None:
            nn.init.normal_(self.class_embedding.weight, std=0.02)
        for module in (*(block.modulation for block in self.blocks), self.final.modulation, self.final.out):
            nn.init.zeros_(module.weight)

    @property
    def null_label(self) -> int | None:
        return self.num_classes

    def forward(self, latents: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the velocity of the latents, ``(N, C, t, h, w)``.

        Args:
            latents: ``(N, C, t, h, w)``, normalized.
            times: Times from 0 (noise) to 1 (data): ``(N,)``, or ``(N, t)`` for one time per latent frame.
            labels: LongTensor ``(N,)`` in ``0..num_classes``; ``num_classes`` is "no class". None if unconditional.

        Raises:
            ValueError: If a shape is wrong, labels are missing or out of range, or an unconditional model gets labels.

        Example:
            >>> from pvvae_plugin.models import LatentDiT
            >>> head = LatentDiT(latent_channels=4, num_classes=10, depth=2, hidden_size=16, num_heads=2)
            >>> labels = torch.tensor([3, head.null_label])  # a class, and no class
            >>> head(torch.randn(2, 4, 3, 2, 2), torch.tensor([0.0, 0.5]), labels).shape
            torch.Size([2, 4, 3, 2, 2])
        """
        h, w = latents.shape[-2:]
        condition = self._condition(latents, times, labels)  # (N, 1 or t, 1, D)
        x = self._run_blocks(latents, condition, self.depth)  # (N, t, h * w, D)
        x = self.final(x, condition)  # (N, t, h * w, C)
        return x.permute(0, 3, 1, 2).unflatten(3, (h, w))  # (N, C, t, h, w)

    def features(self, latents: Tensor, times: Tensor, layer: int, labels: Tensor | None = None) -> Tensor:
        """Return the hidden states ``(N, D, t, h, w)`` after block ``layer``. Later blocks are not run.

        Layers are counted from 1, as in the paper's "layer 14 of 28". The other arguments are those of
        :meth:`forward`.

        Raises:
            ValueError: If ``layer`` is out of range, or for the reasons given in :meth:`forward`.

        Example:
            >>> from pvvae_plugin.models import LatentDiT
            >>> head = LatentDiT(latent_channels=4, depth=2, hidden_size=16, num_heads=2)
            >>> head.features(torch.randn(2, 4, 3, 2, 2), torch.tensor([0.0, 0.5]), layer=1).shape
            torch.Size([2, 16, 3, 2, 2])
        """
        if not 1 <= layer <= self.depth:
            raise ValueError(f'layer must be in 1..{self.depth}, got {layer}')
        x = self._run_blocks(latents, self._condition(latents, times, labels), layer)  # (N, t, h * w, D)
        return x.permute(0, 3, 1, 2).unflatten(3, latents.shape[-2:])

    def _condition(self, latents: Tensor, times: Tensor, labels: Tensor | None) -> Tensor:
        """Check the inputs and return the condition of the blocks, ``(N, 1 or t, 1, D)``."""
        if latents.ndim != 5 or latents.shape[1] != self.latent_channels:
            raise ValueError(f'latents are (N, {self.latent_channels}, t, h, w), got shape {tuple(latents.shape)}')
        n, _, t = latents.shape[:3]
        if times.shape not in ((n,), (n, t)):
            raise ValueError(f'times must have shape ({n},) or ({n}, {t}), got {tuple(times.shape)}')
        condition = self.time_embedding(times.view(n, -1))  # (N, 1 or t, D)
        self._check_labels(labels, n)
        if labels is not None:
            condition = condition + self.class_embedding(labels)[:, None]
        return F.silu(condition)[:, :, None]

    def _check_labels(self, labels: Tensor | None, n: int) -> None:
        if self.num_classes is None:
            if labels is not None:
                raise ValueError('labels must be None for an unconditional model; set num_classes to use labels')
            return
        valid = (
            f'labels must be integers of shape ({n},) in 0..{self.num_classes}, where {self.num_classes} is "no class"'
        )
        if labels is None or labels.shape != (n,) or labels.is_floating_point():
            got = None if labels is None else f'{labels.dtype} of shape {tuple(labels.shape)}'
            raise ValueError(f'{valid}, got {got}')
        # Checking values on a GPU would synchronize in every step; there, the embedding raises for bad labels.
        if labels.device.type == 'cpu' and ((labels < 0) | (labels > self.num_classes)).any():
            raise ValueError(f'{valid}, got {labels.tolist()}')

    def _run_blocks(self, latents: Tensor, condition: Tensor, num_blocks: int) -> Tensor:
        """Return the tokens ``(N, t, h * w, D)`` after the first ``num_blocks`` blocks."""
        grid = tuple(latents.shape[2:])
        dtype = self.embed.weight.dtype
        x = latents.flatten(3).permute(2, 0, 3, 1)  # (t, N, h * w, C)
        x = self.embed(x).to(dtype)  # keep the residual stream in full precision under autocast
        if not self.rope:
            x = x + position_embedding(grid, self.hidden_size, x.device, dtype)[:, None]
        if self.joint:
            x = x.transpose(0, 1).contiguous()  # (N, t, h * w, D)
        else:
            condition = condition.transpose(0, 1)  # (1 or t, N, 1, D)
        rotations = self._rotations(grid, x)
        for index, block in enumerate(self.blocks[:num_blocks]):
            x = self._run(block, x, condition, rotations[index % 2])
        return x if self.joint else x.transpose(0, 1)

    def _rotations(self, grid: tuple[int, int, int], x: Tensor) -> tuple[Rotation | None, Rotation | None]:
        """Return the rotary tables of the two blocks of a pair: spatial and temporal, or twice joint."""
        if not self.rope:
            return None, None
        precise = torch.promote_types(x.dtype, torch.float32)
        cos, sin = rotary_table(grid, self.hidden_size // self.num_heads, x.device, precise)  # (t, h * w, d / 2)
        if self.joint:
            return ((cos.flatten(0, 1), sin.flatten(0, 1)),) * 2
        # Attention depends on relative positions only, so spatial sequences can all use frame 0.
        return (cos[0], sin[0]), (cos[:, 0], sin[:, 0])

    def _run(self, block: Block, x: Tensor, condition: Tensor, rotation: Rotation | None) -> Tensor:
        if self.gradient_checkpointing and self.training and x.requires_grad:
            return checkpoint(block, x, condition, rotation, use_reentrant=False)
        return block(x, condition, rotation)


def _check_shape(depth: int, hidden_size: int, num_heads: int, attention: str, rope: bool) -> None:
    if attention not in ('factorized', 'joint'):
        raise ValueError(f"attention must be 'factorized' or 'joint', got {attention!r}")
    if depth < 1 or (attention == 'factorized' and depth % 2):
        raise ValueError(
            f'depth must be positive, and even for factorized attention (blocks come in pairs), got {depth}'
        )
    if num_heads < 1 or hidden_size % num_heads:
        raise ValueError(f'hidden_size must be divisible by num_heads, got {hidden_size} and {num_heads}')
    if not rope and hidden_size % 4:
        raise ValueError(f'hidden_size must be divisible by 4 for sine-cosine position embeddings, got {hidden_size}')
    if rope and (hidden_size // num_heads % 2 or hidden_size // num_heads < 6):
        head_size = hidden_size // num_heads
        raise ValueError(f'rope needs hidden_size / num_heads to be even and at least 6, got {head_size}')

"""Published state dicts of Inception-I3D: names, shapes, and folding of batch norms into convolutions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

LOGITS = 'logits'
BATCH_NORM = ('weight', 'bias', 'running_mean', 'running_var')

# Maps names of kinetics_i3d_pytorch and StyleGAN-V's program to names of pytorch-i3d and VideoGPT.
OTHER_NAMES = (
    (r'^conv3d_0c_1x1\.', f'{LOGITS}.'),
    (r'^conv3d_', 'Conv3d_'),
    (r'^mixed_', 'Mixed_'),
    (r'\.branch_0\.', '.b0.'),
    (r'\.branch_([12])\.0\.', r'.b\1a.'),
    (r'\.branch_([123])\.1\.', r'.b\1b.'),
    (r'\.batch3d\.', '.bn.'),
)


def rename(key: str) -> str:
    """Convert a key of either naming scheme to that of pytorch-i3d, e.g. ``Mixed_3b.b1a.bn.running_mean``."""
    for pattern, replacement in OTHER_NAMES:
        key = re.sub(pattern, replacement, key)
    return key


def file_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes in a published state dict of this network."""
    shapes = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d):
            shapes[f'{name}.conv3d.weight'] = tuple(module.weight.shape)
            norm = ('conv3d.bias',) if name == LOGITS else [f'bn.{part}' for part in BATCH_NORM]
            shapes.update({f'{name}.{part}': (module.out_channels,) for part in norm})
    return shapes


def fold_batch_norms(state: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Fold each batch norm of a published state dict into its convolution.

    Computes in float64 and rounds to float32 only at the end.

    Args:
        state: Weights with the names and shapes of :func:`file_shapes`.
        eps: Epsilon of the batch norms.
    """
    folded = {}
    for key in state:
        name, _, part = key.partition('.conv3d.')
        if part == 'weight' and name != LOGITS:
            scale, shift, mean, variance = (state[f'{name}.bn.{entry}'].double() for entry in BATCH_NORM)
            scale = scale / (variance + eps).sqrt()
            folded[f'{name}.weight'] = state[key].double() * scale.view(-1, 1, 1, 1, 1)
            folded[f'{name}.bias'] = shift - mean * scale
        elif part:
            folded[f'{name}.{part}'] = state[key]
    return {key: tensor.float() for key, tensor in folded.items()}


def random_state(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return random weights with a fixed seed: He initialization for convolutions, identity batch norms."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        if len(shape) > 1:
            state[key] = torch.randn(shape, generator=rng) * math.sqrt(2 / math.prod(shape[1:]))
        else:
            state[key] = torch.ones(shape) if key.endswith(('bn.weight', 'running_var')) else torch.zeros(shape)
    return state

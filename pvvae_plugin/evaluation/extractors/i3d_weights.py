"""State dicts of Inception-I3D as they are published: names, shapes, and batch norms folded into convolutions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

LOGITS = 'logits'
BATCH_NORM = ('weight', 'bias', 'running_mean', 'running_var')

# How kinetics_i3d_pytorch, and StyleGAN-V's program, call what pytorch-i3d and VideoGPT call otherwise.
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
    """A key of either family of state dicts as pytorch-i3d has it, such as ``Mixed_3b.b1a.bn.running_mean``."""
    for pattern, replacement in OTHER_NAMES:
        key = re.sub(pattern, replacement, key)
    return key


def file_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """What a published state dict of this network holds."""
    shapes = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d):
            shapes[f'{name}.conv3d.weight'] = tuple(module.weight.shape)
            norm = ('conv3d.bias',) if name == LOGITS else [f'bn.{part}' for part in BATCH_NORM]
            shapes.update({f'{name}.{part}': (module.out_channels,) for part in norm})
    return shapes


def fold_batch_norms(state: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Weights of our network from those of a file: each batch norm becomes part of its convolution.

    Computed in float64, so that only the rounding to float32 at the end is added.

    Args:
        state: As :func:`file_shapes` says.
        eps: Added to the variances.
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
    """Weights as a file would hold them, always the same ones: He's for convolutions, batch norms that do nothing."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        if len(shape) > 1:
            state[key] = torch.randn(shape, generator=rng) * math.sqrt(2 / math.prod(shape[1:]))
        else:
            state[key] = torch.ones(shape) if key.endswith(('bn.weight', 'running_var')) else torch.zeros(shape)
    return state

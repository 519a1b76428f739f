"""Standard error and bias of a statistic from its values with one group of samples left out at a time.

A bootstrap of a Fréchet distance is not centred on it: drawing with replacement leaves fewer distinct samples, and the
distance grows as samples get fewer. Leaving groups out keeps the samples distinct, and the same values say how large
the bias itself is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NUM_GROUPS = 10
T_95 = 2.262157  # 97.5 % quantile of Student's t with 9 degrees of freedom


class Jackknife(NamedTuple):
    """What a jackknife says of a statistic.

    Attributes:
        standard_error: Of the statistic at this number of samples.
        bias: How much of it is due to there being only so many samples, to first order in ``1 / N``.
    """

    standard_error: Tensor
    bias: Tensor


def group_of(index: int | Tensor) -> int | Tensor:
    """The group of the sample at an index: samples are dealt out in turn."""
    return index % NUM_GROUPS


def jackknife(value: Tensor, *without: Tensor) -> Jackknife:
    """Delete-a-group jackknife (Shao and Tu 1995, section 2.3), of one or of several independent sets of samples.

    Args:
        value: Of all samples, a scalar.
        without: For each set, the values with one of its ``G`` groups left out, ``(G,)``.

    Returns:
        Variances and biases of the sets add up.
    """
    variance, bias = torch.zeros_like(value), torch.zeros_like(value)
    for left in without:
        groups = len(left)
        variance = variance + (groups - 1) / groups * (left - left.mean()).square().sum()
        bias = bias + (groups - 1) * (left.mean() - value)
    return Jackknife(variance.sqrt(), bias)

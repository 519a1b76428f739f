"""Delete-a-group jackknife: standard error and bias of a statistic from leave-one-group-out values.

A bootstrap of a Fréchet distance is biased: drawing with replacement gives fewer distinct samples, and the distance
grows as the number of samples falls. The jackknife keeps the samples distinct and also estimates the bias.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NUM_GROUPS = 10
T_95 = 2.262157  # 97.5 % quantile of Student's t with 9 degrees of freedom


class Jackknife(NamedTuple):
    """Result of a jackknife.

    Attributes:
        standard_error: Standard error of the statistic at this number of samples.
        bias: Bias of the statistic due to the finite number of samples, to first order in ``1 / N``.

    Example:
        >>> from pvvae_plugin.functional.jackknife import jackknife
        >>> jackknife(torch.tensor(2.0), torch.tensor([2.0, 2.0])).standard_error  # no group matters
        tensor(0.)
    """

    standard_error: Tensor
    bias: Tensor


def group_of(index: int | Tensor) -> int | Tensor:
    """Return the group of the sample at an index. Samples are assigned round-robin.

    Example:
        >>> from pvvae_plugin.functional.jackknife import group_of
        >>> [group_of(index) for index in (0, 1, 9, 10)]
        [0, 1, 9, 0]
    """
    return index % NUM_GROUPS


def jackknife(value: Tensor, *without: Tensor) -> Jackknife:
    """Compute a delete-a-group jackknife (Shao and Tu 1995, section 2.3) over one or more independent sets.

    Args:
        value: Statistic of all samples, a scalar.
        without: For each set, the statistic without each of its ``G`` groups, ``(G,)``.

    Returns:
        Standard error and bias. Variances and biases of the sets are summed.

    Example:
        >>> from pvvae_plugin.functional.jackknife import jackknife
        >>> values = torch.tensor([1.0, 2.0, 6.0])
        >>> without = torch.stack([values[[1, 2]].mean(), values[[0, 2]].mean(), values[[0, 1]].mean()])
        >>> found = jackknife(values.mean(), without)
        >>> torch.allclose(found.standard_error, values.std() / 3**0.5)  # the standard error of a mean
        True
        >>> found.bias
        tensor(0.)
    """
    variance, bias = torch.zeros_like(value), torch.zeros_like(value)
    for left in without:
        groups = len(left)
        variance = variance + (groups - 1) / groups * (left - left.mean()).square().sum()
        bias = bias + (groups - 1) * (left.mean() - value)
    return Jackknife(variance.sqrt(), bias)

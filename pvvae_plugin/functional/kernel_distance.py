"""Unbiased squared maximum mean discrepancy with a polynomial kernel, with group sums for a jackknife."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 1024  # rows of the kernel matrix per block: 16 MB for 2,048 columns


class KernelSums(NamedTuple):
    """Sums of kernel values over pairs of groups, ``(G, G)`` each, and samples per group, ``(G,)``.

    Attributes:
        xx: Sums over pairs of different samples of x.
        yy: Sums over pairs of different samples of y.
        xy: Sums over pairs of a sample of x and a sample of y.
        count_x: Samples of x in each group, float64.
        count_y: Samples of y in each group, float64.

    Example:
        >>> from pvvae_plugin.functional.kernel_distance import kernel_sums
        >>> x, groups = torch.ones(4, 1), torch.tensor([0, 0, 1, 1])
        >>> sums = kernel_sums(x, x, groups, groups, num_groups=2)
        >>> sums.count_x
        tensor([2., 2.], dtype=torch.float64)
    """

    xx: Tensor
    yy: Tensor
    xy: Tensor
    count_x: Tensor
    count_y: Tensor


def polynomial_mmd(x: Tensor, y: Tensor, degree: int = 3, coef: float = 1.0) -> Tensor:
    """Return an unbiased estimate of the squared MMD (Gretton et al. 2012, eq. 3).

    The kernel is ``(x . y / D + coef)^degree``. The estimate uses all samples at once, without subsets. It can be
    negative because it is unbiased.

    Args:
        x: Features ``(N, D)``, ``N`` at least 2.
        y: Features ``(M, D)``, ``M`` at least 2.
        degree: Degree of the polynomial.
        coef: Constant of the polynomial.

    Returns:
        Scalar, float64.

    Raises:
        ValueError: If the shapes do not match, there are too few samples, or a value is not finite.

    Example:
        >>> from pvvae_plugin.functional.kernel_distance import polynomial_mmd
        >>> x, y = torch.zeros(3, 2), torch.ones(3, 2)
        >>> polynomial_mmd(x, y)  # kernel values 1 within x, 8 within y and 1 between them: 1 + 8 - 2 * 1
        tensor(7., dtype=torch.float64)
    """
    groups = [torch.zeros(len(samples), dtype=torch.long, device=samples.device) for samples in (x, y)]
    return mmd_of_sums(kernel_sums(x, y, *groups, num_groups=1, degree=degree, coef=coef))


def kernel_sums(
    x: Tensor, y: Tensor, groups_x: Tensor, groups_y: Tensor, num_groups: int, degree: int = 3, coef: float = 1.0
) -> KernelSums:
    """Sum kernel values over pairs of groups in float64, one block of rows at a time.

    Args:
        x: Features ``(N, D)``.
        y: Features ``(M, D)``.
        groups_x: Group indices of the samples of x, int64 ``(N,)`` in ``0..num_groups - 1``.
        groups_y: Group indices of the samples of y, int64 ``(M,)``.
        num_groups: ``G``.
        degree: See :func:`polynomial_mmd`.
        coef: See :func:`polynomial_mmd`.

    Raises:
        ValueError: See :func:`polynomial_mmd`.

    Example:
        >>> from pvvae_plugin.functional.kernel_distance import kernel_sums
        >>> x, groups = torch.zeros(4, 1), torch.tensor([0, 0, 1, 1])
        >>> kernel_sums(x, x, groups, groups, num_groups=2).xx  # each kernel value is 1: 2 pairs within, 4 between
        tensor([[2., 4.],
                [4., 2.]], dtype=torch.float64)
    """
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f'features must be (N, D) and (M, D) with N and M at least 2, got {tuple(x.shape)} and {tuple(y.shape)}'
        )
    x, y = x.double(), y.double()
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError('features must be finite, got NaN or infinity')

    def sums(a: Tensor, b: Tensor, in_a: Tensor, in_b: Tensor) -> Tensor:
        out = a.new_zeros(num_groups, num_groups)
        columns = torch.nn.functional.one_hot(in_b, num_groups).double()  # (M, G)
        for start in range(0, len(a), ROWS):
            rows = (a[start : start + ROWS] @ b.T / a.shape[1] + coef) ** degree @ columns  # (rows, G)
            out.index_add_(0, in_a[start : start + ROWS], rows)
        return out

    def without_self(a: Tensor, in_a: Tensor) -> Tensor:
        self_values = (a.square().sum(dim=1) / a.shape[1] + coef) ** degree
        return sums(a, a, in_a, in_a) - torch.diag(a.new_zeros(num_groups).index_add_(0, in_a, self_values))

    counts = [torch.bincount(groups, minlength=num_groups).double() for groups in (groups_x, groups_y)]
    return KernelSums(without_self(x, groups_x), without_self(y, groups_y), sums(x, y, groups_x, groups_y), *counts)


def mmd_of_sums(sums: KernelSums, without_x: int | None = None, without_y: int | None = None) -> Tensor:
    """Return the unbiased squared MMD of all samples, or without one group.

    Args:
        sums: Result of :func:`kernel_sums`.
        without_x: Group of x to omit.
        without_y: Group of y to omit.

    Example:
        >>> from pvvae_plugin.functional.kernel_distance import kernel_sums, mmd_of_sums
        >>> x, y, groups = torch.zeros(4, 1), torch.ones(4, 1), torch.tensor([0, 0, 1, 1])
        >>> sums = kernel_sums(x, y, groups, groups, num_groups=2)
        >>> mmd_of_sums(sums), mmd_of_sums(sums, without_x=0)
        (tensor(7., dtype=torch.float64), tensor(7., dtype=torch.float64))
    """
    keep_x, keep_y = (torch.ones_like(count) for count in (sums.count_x, sums.count_y))
    if without_x is not None:
        keep_x[without_x] = 0
    if without_y is not None:
        keep_y[without_y] = 0
    n, m = keep_x @ sums.count_x, keep_y @ sums.count_y
    return (
        keep_x @ sums.xx @ keep_x / (n * (n - 1))
        + keep_y @ sums.yy @ keep_y / (m * (m - 1))
        - 2 * (keep_x @ sums.xy @ keep_y) / (n * m)
    )

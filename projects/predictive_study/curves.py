"""Statistics of the study: steps to reach a target, and confidence intervals of means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

# 97.5 % quantiles of Student's t for 1 to 20 degrees of freedom.
T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def steps_to_reach(steps: Sequence[int], values: Sequence[float], target: float) -> float | None:
    """Return the step at which a falling curve first reaches a target, interpolated linearly in log steps.

    Args:
        steps: Positive steps in increasing order.
        values: Values at those steps.
        target: The value to reach.

    Returns:
        The step, or None if the curve does not reach the target. If the curve starts below the target, the first step,
        which is an upper bound.
    """
    if values[0] <= target:
        return float(steps[0])
    for i in range(1, len(steps)):
        if values[i] <= target:
            share = (values[i - 1] - target) / (values[i - 1] - values[i])
            return steps[i - 1] * (steps[i] / steps[i - 1]) ** share
    return None


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean over seeds and the half-width of its 95 % confidence interval (Student's t).

    The half-width is None for a single seed. With two seeds it is 12.7 standard errors, which is hardly useful.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, t_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def differences(
    values: Mapping[str, Mapping[str, float]], reference: str
) -> dict[str, tuple[list[float], float | None]]:
    """Return the differences of every arm to a reference arm with the same seed, with confidence intervals.

    Two seeds give a poor estimate of the variance, so it is estimated from all arms together. It is the residual
    variance of all runs after removing arm and seed effects (a randomized block design, with 9 degrees of freedom for
    ten arms and two seeds). This assumes equal variance in all arms. For two arms, the result is Student's interval of
    paired differences.

    Args:
        values: One number per run, by arm and seed.
        reference: The arm to compare with.

    Returns:
        For every arm, the differences in the order of its seeds, and the half-width of the 95 % confidence interval of
        their mean. The half-width is None without residual degrees of freedom. Arms that share no seed with the
        reference are skipped.
    """
    runs = [(arm, seed) for arm, of_arm in values.items() for seed in of_arm]
    effects = sorted({('arm', arm) for arm, _ in runs} | {('seed', seed) for _, seed in runs})
    design = np.array([[float(e in (('arm', arm), ('seed', seed))) for e in effects] for arm, seed in runs])
    observed = np.array([values[arm][seed] for arm, seed in runs])
    solution, _, rank, _ = np.linalg.lstsq(design, observed, rcond=None)
    freedom = len(runs) - rank
    variance = float(((observed - design @ solution) ** 2).sum()) / freedom if freedom else None
    found = {}
    for arm, of_arm in values.items():
        pairs = [value - values[reference][seed] for seed, value in of_arm.items() if seed in values[reference]]
        if arm != reference and pairs:
            half = None if variance is None else t_975(freedom) * math.sqrt(2 * variance / len(pairs))
            found[arm] = (pairs, half)
    return found


def t_975(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, slightly too large above 20 degrees of freedom."""
    return T_975[min(freedom, len(T_975)) - 1]

"""The study's arithmetic: when a curve reaches a value, and how sure one may be of a mean over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

# Student's t, 97.5 %, of 1 to 20 degrees of freedom.
T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def steps_to_reach(steps: Sequence[int], values: Sequence[float], target: float) -> float | None:
    """The step at which a falling curve first comes down to a target, by straight lines over the steps' logarithm.

    Args:
        steps: Rising, positive.
        values: At those steps.
        target: The value to reach.

    Returns:
        The step; the first one where the curve begins below the target, which then is an upper bound. None where it
        does not get there.
    """
    if values[0] <= target:
        return float(steps[0])
    for i in range(1, len(steps)):
        if values[i] <= target:
            share = (values[i - 1] - target) / (values[i - 1] - values[i])
            return steps[i - 1] * (steps[i] / steps[i - 1]) ** share
    return None


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds, and half the width of its 95 % interval by Student's t; None for a single seed.

    With two seeds the interval is 12.7 standard errors to each side: it says how little two seeds say.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, t_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def differences(
    values: Mapping[str, Mapping[str, float]], reference: str
) -> dict[str, tuple[list[float], float | None]]:
    """Every arm against one of them with the same seed, and how sure one may be of the mean.

    Two seeds say little of how much runs scatter; all arms together say more. So the scatter is that of what an arm's
    and a seed's effect leave of all runs (a randomised block design: of ten arms with two seeds 9 degrees of freedom),
    which takes runs of all arms to scatter alike. For two arms it is Student's interval of paired differences.

    Args:
        values: One number of each run, by arm and seed.
        reference: The arm that the others are compared with.

    Returns:
        By arm: the differences, in the order of its seeds, and half the width of the 95 % interval of their mean; None
        where nothing is left to tell the scatter by. Arms without a seed of the reference's are left out.
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
    """Student's t at 97.5 %; of more than 20 degrees of freedom a little too wide."""
    return T_975[min(freedom, len(T_975)) - 1]

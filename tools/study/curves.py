"""The study's arithmetic: when a curve reaches a value, and how sure one may be of a mean over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

# Student's t, 97.5 %, of 1 to 9 degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


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
    quantile = T_975[len(values) - 2] if len(values) - 2 < len(T_975) else T_975[-1]  # a little too wide
    return mean, quantile * statistics.stdev(values) / math.sqrt(len(values))

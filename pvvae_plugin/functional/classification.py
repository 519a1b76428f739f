"""Classification accuracy and its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def confusion_counts(labels: Sequence[int], guesses: Sequence[int], num_classes: int) -> np.ndarray:
    """Count how often each true class was predicted as each class.

    Args:
        labels: ``N`` true classes.
        guesses: ``N`` predicted classes.
        num_classes: ``K``.

    Returns:
        int64 ``(K, K)``: true class in rows, predicted class in columns.

    Raises:
        ValueError: If the lengths differ, or a class is not in ``0..K - 1``.

    Example:
        >>> from pvvae_plugin.functional.classification import confusion_counts
        >>> confusion_counts(labels=[0, 0, 1], guesses=[0, 1, 1], num_classes=2)
        array([[1, 1],
               [0, 1]])
    """
    if len(labels) != len(guesses):
        raise ValueError(f'labels and guesses differ in length: {len(labels)} and {len(guesses)}')
    pairs = np.array([labels, guesses], dtype=np.int64)  # (2, N)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= num_classes):
        raise ValueError(f'classes must be in 0..{num_classes - 1}, got {pairs.min()} to {pairs.max()}')
    return np.bincount(pairs[0] * num_classes + pairs[1], minlength=num_classes**2).reshape(num_classes, num_classes)


def wilson_interval(hits: int, num: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927). It is valid near 0 and 1 and stays within [0, 1].

    Args:
        hits: Number of correct predictions.
        num: Number of predictions, at least 1.
        z: Quantile of the normal distribution, 1.96 for 95 %.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: If ``num`` is not positive or ``hits`` not in ``0..num``.

    Example:
        >>> from pvvae_plugin.functional.classification import wilson_interval
        >>> low, high = wilson_interval(hits=50, num=100)
        >>> print(f'{low:.3f} to {high:.3f}')
        0.404 to 0.596
    """
    if num < 1 or not 0 <= hits <= num:
        raise ValueError(f'num must be positive and hits in 0..num, got num={num} and hits={hits}')
    share = hits / num
    middle = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2)) / (1 + z**2 / num)
    return max(0.0, middle - half), min(1.0, middle + half)

"""The study's arithmetic against brute force, textbooks and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from projects.predictive_study.curves import differences, mean_and_interval, steps_to_reach


def test_steps_to_reach_a_value_are_those_of_the_curve():
    rng = np.random.default_rng(0)
    for _ in range(50):
        steps = np.cumsum(rng.integers(1, 9, size=6)).tolist()
        values = rng.uniform(0, 10, size=6).tolist()
        target = float(rng.uniform(0, 10))
        fine = np.geomspace(steps[0], steps[-1], 200001)
        below = np.flatnonzero(np.interp(np.log(fine), np.log(steps), values) <= target)
        found = steps_to_reach(steps, values, target)
        assert (found is None) == (below.size == 0)
        if found is not None:
            assert found == pytest.approx(fine[below[0]], abs=1e-3)


def test_intervals_are_students():
    assert mean_and_interval([4.0]) == (4.0, None)
    mean, half = mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / math.sqrt(3), rel=1e-4)
    # Coverage of the interval.
    rng = np.random.default_rng(1)
    for count in (2, 4):
        draws = rng.normal(5, 2, size=(4000, count))
        found = [mean_and_interval(row.tolist()) for row in draws]
        assert np.mean([abs(m - 5) <= h for m, h in found]) == pytest.approx(0.95, abs=0.015)


def test_intervals_of_differences_are_those_of_a_block_design():
    # For two arms, the result is Student's interval of paired differences.
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 4)).tolist()
    pairs, half = differences({'a': dict(enumerate(first)), 'b': dict(enumerate(second))}, 'a')['b']
    assert pairs == pytest.approx([b - a for a, b in zip(first, second, strict=True)])
    assert half == pytest.approx(mean_and_interval(pairs)[1])
    # Textbook sum of squares for a complete design: 6 degrees of freedom for 4 arms and 3 seeds.
    table = rng.normal(size=(4, 3))
    found = differences({arm: dict(enumerate(row)) for arm, row in zip('abcd', table.tolist(), strict=True)}, 'b')
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    assert found['d'][1] == pytest.approx(2.447 * math.sqrt((rest**2).sum() / 6 * 2 / 3), rel=1e-4)
    assert set(found) == {'a', 'c', 'd'}
    # Coverage of the interval if seeds differ more than arms and one arm lacks a seed.
    truth, hits = {'a': 0.0, 'b': 1.0, 'c': -2.0, 'd': 0.5}, []
    for _ in range(2000):
        seeds = rng.normal(scale=5, size=2)
        runs = {arm: {s: mean + seeds[s] + rng.normal() for s in (0, 1)} for arm, mean in truth.items()}
        del runs['d'][1]
        hits += [abs(np.mean(p) - truth[arm]) <= h for arm, (p, h) in differences(runs, 'a').items()]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)
    # One seed gives no estimate of the variance.
    assert differences({'a': {0: 1.0}, 'b': {0: 3.0}, 'c': {1: 4.0}}, 'a') == {'b': ([2.0], None)}

"""Inception Score compared with closed forms and a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from pvvae_plugin.functional.inception_score import inception_scores


def test_sure_and_varied_gives_the_number_of_classes():
    assert inception_scores(torch.eye(7).repeat(3, 1), 3) == pytest.approx(torch.full((3,), 7.0).double())


def test_unsure_or_all_alike_gives_one():
    assert inception_scores(torch.full((8, 4), 0.25), 1).item() == pytest.approx(1.0)
    assert inception_scores(torch.eye(4)[[2] * 8], 1).item() == pytest.approx(1.0)


def test_splits_and_values_of_a_plain_loop():
    n, splits = 23, 4
    probs = torch.rand(n, 6, generator=torch.Generator().manual_seed(0)).double()
    probs /= probs.sum(1, keepdim=True)
    scores = inception_scores(probs, splits)
    for i in range(splits):
        rows = probs[i * n // splits : (i + 1) * n // splits].tolist()
        marginal = [sum(row[c] for row in rows) / len(rows) for c in range(6)]
        kl = sum(p * math.log(p / q) for row in rows for p, q in zip(row, marginal, strict=True)) / len(rows)
        assert scores[i].item() == pytest.approx(math.exp(kl), rel=1e-12)


def test_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match='logits'):
        inception_scores(torch.randn(20, 5), 1)
    with pytest.raises(ValueError, match='add up to 1'):
        inception_scores(torch.rand(20, 5), 1)
    with pytest.raises(ValueError, match='number of splits, 10'):
        inception_scores(torch.eye(5), 10)

from __future__ import annotations

import pytest
import torch

from pvvae_plugin.models import DiagonalGaussian, PredictiveOutput
from pvvae_plugin.registry import MODELS
from pvvae_plugin.temporal import ObservedGroups, frames_to_groups


def make_output(video, counts, ratio=2):
    n, _, t = video.shape[:3]
    groups = max(counts)
    posterior = DiagonalGaussian(torch.randn(n, 2, groups, 1, 1), torch.randn(n, 2, groups, 1, 1))
    observed = ObservedGroups.of(counts, n, frames_to_groups(t, ratio))
    return PredictiveOutput(torch.rand(video.shape) * 2 - 1, posterior, observed)


def test_terms_equal_brute_force_loops():
    video = torch.rand(2, 3, 5, 3, 4) * 2 - 1
    output = make_output(video, [1, 3])
    loss = MODELS.build({'type': 'PredictiveReconLoss', 'rec_weight': 3.0, 'diff_weight': 0.5, 'kl_weight': 0.1})
    terms = loss(output, video)
    x, y = output.reconstruction.double(), video.double()
    squared, differences = [], []
    observed, predicted = [], []
    for n, count in enumerate([1, 3]):
        for c in range(3):
            for t in range(5):
                for h in range(3):
                    for w in range(4):
                        e = (x[n, c, t, h, w] - y[n, c, t, h, w]).item()
                        squared.append(e * e)
                        (observed if t < 1 + 2 * (count - 1) else predicted).append(e * e)
                        if t:
                            dx = (x[n, c, t, h, w] - x[n, c, t - 1, h, w]).item()
                            dy = (y[n, c, t, h, w] - y[n, c, t - 1, h, w]).item()
                            differences.append((dx - dy) ** 2)

    def mean(values):
        return sum(values) / len(values)

    assert terms['loss_mse'].item() == pytest.approx(3.0 * mean(squared), rel=1e-5)
    assert terms['loss_diff'].item() == pytest.approx(1.5 * mean(differences), rel=1e-5)
    assert terms['loss_kl'].item() == pytest.approx(0.1 * output.posterior.kl(torch.tensor([1, 3])).item(), rel=1e-5)
    assert terms['mse_observed'].item() == pytest.approx(mean(observed), rel=1e-5)
    assert terms['mse_predicted'].item() == pytest.approx(mean(predicted), rel=1e-5)


def test_still_image_has_no_difference_but_a_gradient():
    video = torch.rand(2, 3, 1, 4, 4)
    output = make_output(video, [1, 1])
    output.reconstruction.requires_grad_()
    terms = MODELS.build({'type': 'PredictiveReconLoss'})(output, video)
    assert terms['loss_diff'].item() == 0.0
    assert 'mse_predicted' not in terms
    sum(v for k, v in terms.items() if k.startswith('loss')).backward()
    assert torch.isfinite(output.reconstruction.grad).all()


def test_ablation_leaves_the_difference_term_out():
    video = torch.rand(1, 3, 5, 4, 4)
    terms = MODELS.build({'type': 'PredictiveReconLoss', 'diff_weight': 0.0})(make_output(video, [2]), video)
    assert set(terms) == {'loss_mse', 'loss_kl', 'kl', 'mse_observed', 'mse_predicted'}


def test_wrong_weights_are_refused_when_built():
    with pytest.raises(ValueError, match='lpips_weight=0'):
        MODELS.build({'type': 'PredictiveReconLoss', 'lpips_weight': 1.0})
    with pytest.raises(ValueError, match='kl_weight.*-1'):
        MODELS.build({'type': 'PredictiveReconLoss', 'kl_weight': -1})

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub

from pvvae_plugin.registry import HOOKS, MODELS


def warnings_of(curves: dict[str, list[float]], **options) -> tuple[list[str], MessageHub]:
    """Return the warnings of the hook for a run with these curves."""
    hub, warnings = MessageHub.get_current_instance(), []
    runner = SimpleNamespace(message_hub=hub, logger=SimpleNamespace(warning=warnings.append), iter=0)
    hook = HOOKS.build({'type': 'TrainingHealthHook', 'window': 10, **options})
    for runner.iter in range(len(next(iter(curves.values())))):
        for name, values in curves.items():
            hub.update_scalar(f'train/{name}', values[runner.iter])
        hook.after_train_iter(runner, runner.iter)
    return warnings, hub


def test_a_kl_term_that_explodes_is_reported():
    said, hub = warnings_of({'kl': [3.0] * 20 + [2.0] * 10 + [19.0] * 10 + [50.0] * 10})
    assert len(said) == 1
    assert 'grown to 50, 25 times its lowest' in said[0]
    assert hub.get_scalar('train/kl_growth').data[0].tolist() == [1.0, 1.0, 1.0, 9.5, 25.0]


def test_a_discriminator_that_has_won_is_reported():
    said, _ = warnings_of({'kl': [3.0] * 30, 'disc_accuracy': [0.9] * 10 + [0.97] * 5 + [1.0] * 5 + [0.5] * 10})
    assert len(said) == 1
    assert 'classifies 98.5% of clips correctly' in said[0]


def test_before_a_window_is_full_nothing_is_said():
    said, hub = warnings_of({'kl': [1.0] + [100.0] * 8, 'disc_accuracy': [1.0] * 9})
    assert said == []
    assert 'train/kl_growth' not in hub.log_scalars


def test_accuracy_is_the_share_of_right_verdicts():
    real, fake = torch.tensor([2.0, 0.1, -1.0, 3.0]), torch.tensor([-1.0, 5.0, 1.0, -0.1])
    losses = MODELS.build({'type': 'AdversarialLoss'}).discriminator_loss(real, fake)
    assert losses['disc_accuracy'] == pytest.approx((3 + 2) / 8)


@pytest.mark.parametrize('options', [{'window': 0}, {'kl_factor': 1.0}, {'max_accuracy': 0.5}])
def test_settings_that_would_always_warn_are_refused(options):
    with pytest.raises(ValueError, match='window must be'):
        HOOKS.build({'type': 'TrainingHealthHook', **options})

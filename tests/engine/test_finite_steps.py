"""Steps with non-finite gradients are skipped, counted and reported; too many in a row end the run."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper

from pvvae_plugin.engine import SubmoduleOptimWrapperConstructor
from pvvae_plugin.engine.hooks.checkpoint_hook import check_finite_weights
from pvvae_plugin.engine.optim import SkippedSteps, left_out_steps
from pvvae_plugin.registry import HOOKS


class Model(torch.nn.Module):
    """Two parts with one optimizer each, like a GAN."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 1)
        self.second = torch.nn.Linear(2, 1)

    @property
    def optimized_modules(self):
        return {'first': self.first, 'second': self.second}


class Run:
    """Minimal runner for hooks."""

    def __init__(self, model, optim_wrapper):
        self.model, self.optim_wrapper = model, optim_wrapper
        self.message_hub = MessageHub.get_current_instance()
        self.iter = 0
        self.hooks = []
        self.warnings = []
        self.logger = SimpleNamespace(warning=self.warnings.append)


def make(**options):
    torch.manual_seed(0)
    entry = {'type': 'AutocastOptimWrapper', 'optimizer': {'type': 'AdamW', 'lr': 0.1}, **options}
    model = Model()
    return Run(model, SubmoduleOptimWrapperConstructor({'first': dict(entry), 'second': dict(entry)})(model))


def step(run, part, factor=1.0, x=(1.0, 2.0)):
    loss = getattr(run.model, part)(torch.tensor(x)).square().sum() * factor
    run.optim_wrapper[part].update_params(loss)
    return {'loss': loss.detach(), 'loss_rec': loss.detach()}


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize('clip', [{}, {'clip_grad': {'max_norm': 1.0}}])
@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_leaves_no_trace(clip, bad):
    """Weights and moments afterwards equal those of a run without the step."""
    run, other = make(**clip), make(**clip)
    for factor in (1.0, bad, 0.5):
        step(run, 'first', factor)
    for factor in (1.0, 0.5):
        step(other, 'first', factor)
    assert all(map(torch.equal, weights(run.model.first), weights(other.model.first)))
    states = [r.optim_wrapper['first'].optimizer.state_dict()['state'] for r in (run, other)]
    for name, value in states[1][0].items():
        assert torch.equal(states[0][0][name], value), name


def test_one_bad_part_of_an_accumulated_gradient_spoils_all_of_it():
    run = make(accumulative_counts=2)
    before = weights(run.model.first)
    step(run, 'first', math.nan)
    step(run, 'first')
    assert all(map(torch.equal, weights(run.model.first), before))
    step(run, 'first')
    step(run, 'first')
    assert not torch.equal(weights(run.model.first)[0], before[0])


def test_only_the_part_that_is_bad_stands_still():
    run = make()
    before = weights(run.model)
    step(run, 'first', math.nan)
    step(run, 'second')
    after = weights(run.model)
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[2], before[2])
    assert SkippedSteps(run.message_hub, 'first').get()['total'] == 1
    assert SkippedSteps(run.message_hub, 'second').get()['total'] == 0
    assert left_out_steps(run)
    step(run, 'first')
    assert not left_out_steps(run)


def test_the_hook_names_the_term_or_the_parameter():
    run, hook = make(), HOOKS.build({'type': 'FiniteLossHook'})
    hook.before_train(run)
    hook.after_train_iter(run, 0, outputs=step(run, 'first', math.nan))
    assert 'loss_rec=nan' in run.warnings[-1]
    with torch.no_grad():
        run.model.second.weight.zero_()
    # The loss is finite but its gradient is not (square root at zero).
    x = torch.tensor([1.0, 2.0])
    run.optim_wrapper['second'].update_params((run.model.second.weight * x).square().sum().sqrt())
    hook.after_train_iter(run, 0, outputs={'loss': torch.tensor(0.0)})
    assert 'the gradient of second.weight' in run.warnings[-1]
    assert run.message_hub.get_scalar('train/skipped_second').current() == 1


def test_too_many_in_a_row_end_the_run():
    run, hook = make(), HOOKS.build({'type': 'FiniteLossHook', 'max_in_a_row': 3})
    hook.before_train(run)
    for factor in (math.nan, math.nan, 1.0, math.nan, math.nan):  # never three in a row
        hook.after_train_iter(run, 0, outputs=step(run, 'first', factor))
    with pytest.raises(FloatingPointError, match='first skipped the last 3 steps, not finite: loss=nan'):
        hook.after_train_iter(run, 0, outputs=step(run, 'first', math.nan))


@pytest.mark.parametrize(
    ('dtype', 'advised'),
    [('float32', False), ('bfloat16', True)],  # set in a config or by --amp
)
def test_the_advice_fits_the_precision_of_the_run(dtype, advised):
    run, hook = make(dtype=dtype), HOOKS.build({'type': 'FiniteLossHook', 'max_in_a_row': 1})
    hook.before_train(run)
    with pytest.raises(FloatingPointError) as stopped:
        hook.after_train_iter(run, 0, outputs=step(run, 'first', math.nan))
    with torch.no_grad():
        run.model.first.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError) as unsaved:
        check_finite_weights(run)
    for error in (stopped, unsaved):
        assert ('optim_wrapper.first.dtype=float32' in str(error.value)) == advised
        assert ('--amp' in str(error.value)) == advised
        assert 'optim_wrapper.first.optimizer.lr' in str(error.value)


def test_counts_come_back_with_a_checkpoint():
    run, hook = make(), HOOKS.build({'type': 'FiniteLossHook', 'max_in_a_row': 3})
    for _ in range(2):
        step(run, 'first', math.nan)
    state = run.message_hub.state_dict()
    MessageHub._instance_dict.clear()
    resumed = make()
    resumed.message_hub.load_state_dict(state)
    hook.before_train(resumed)
    with pytest.raises(FloatingPointError, match='last 3 steps'):
        hook.after_train_iter(resumed, 0, outputs=step(resumed, 'first', math.nan))


def test_an_optimizer_that_makes_such_steps_ends_the_run_at_once():
    model = Model()
    run = Run(model, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    hook = HOOKS.build({'type': 'FiniteLossHook'})
    hook.before_train(run)
    hook.after_train_iter(run, 0, outputs={'loss': torch.tensor(1.0)})
    with pytest.raises(FloatingPointError, match=r'iteration 0: loss_kl=inf.*--resume'):
        hook.after_train_iter(run, 0, outputs={'loss': torch.tensor(1.0), 'loss_kl': math.inf})


def test_a_second_optimizer_counts_as_the_first():
    """A part that starts later accumulates over the same iterations, with and without a resume."""
    run = make(accumulative_counts=2)
    first, second = run.optim_wrapper['first'], run.optim_wrapper['second']
    updates = []
    for iteration in range(7):
        step(run, 'first')
        if iteration >= 3:
            second.follow(first)
            before = weights(run.model.second)
            step(run, 'second')
            if not torch.equal(before[0], weights(run.model.second)[0]):
                updates.append(iteration)
    assert updates == [3, 5]


def test_max_in_a_row_must_be_positive():
    with pytest.raises(ValueError, match='max_in_a_row must be a positive integer, got 0'):
        HOOKS.build({'type': 'FiniteLossHook', 'max_in_a_row': 0})

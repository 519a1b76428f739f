"""Exponential moving average (EMA) of trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from pvvae_plugin.functional.sharded import gather_to_main, shard_like
from pvvae_plugin.registry import HOOKS


@HOOKS.register_module()
class TrainedWeightsEMAHook(Hook):
    """Average the trained weights of one submodule, without frozen encoder, discriminator and perceptual network.

    Validation, and a test after training, use the averages. The ``state_dict`` of a checkpoint holds the averages, too.
    The raw weights are stored under ``raw_weights`` and restored on resume. Sharded weights are averaged shard by shard
    in each process. (MMEngine's ``EMAHook`` copies the whole algorithm.)

    Args:
        module: Name of the submodule, e.g. ``'backbone'``.
        decay: Weight of the old average in each update. In update ``n`` it is at most ``(1 + n) / (10 + n)``, so the
            random initialization is forgotten quickly.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> config = dict(type='TrainedWeightsEMAHook', module='head', decay=0.9999)
        >>> hook = HOOKS.build(config)  # an entry of custom_hooks
        >>> hook.module, hook.decay
        ('head', 0.9999)
    """

    priority = 'NORMAL'

    def __init__(self, module: str = 'backbone', decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f'decay must be in [0, 1), got {decay}')
        self.module = module
        self.decay = decay
        self.averages: dict[str, Tensor] = {}
        self._swapped = False

    def _trained(self, runner: Runner) -> dict[str, Tensor]:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        part = getattr(model, self.module, None) or nn.Module()
        return {f'{self.module}.{name}': p.detach() for name, p in part.named_parameters() if p.requires_grad}

    def before_train(self, runner: Runner) -> None:
        weights = self._trained(runner)
        if not weights:
            raise ValueError(
                f'TrainedWeightsEMAHook: module={self.module!r} has no trained weights in this model; use backbone '
                'for a VAE, head for a generator'
            )
        resumed = self.averages
        self.averages = {name: shard_like(resumed.get(name, w), w).clone() for name, w in weights.items()}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        optim = runner.optim_wrapper
        optim = next(iter(optim.values())) if isinstance(optim, OptimWrapperDict) else optim
        if not optim.should_update():
            return  # gradients are still being accumulated
        decay = min(self.decay, (1 + runner.iter) / (10 + runner.iter))
        weights = self._trained(runner)
        torch._foreach_lerp_([self.averages[n] for n in weights], list(weights.values()), 1.0 - decay)

    def _swap(self, runner: Runner) -> None:
        for name, weight in self._trained(runner).items():
            raw = weight.clone()
            weight.copy_(self.averages[name])
            self.averages[name].copy_(raw)
        self._swapped = not self._swapped

    def end_swap(self, runner: Runner) -> None:
        """Restore the raw weights after an interrupted validation."""
        if self._swapped:
            self._swap(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        if self.averages:
            self._swap(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self.averages:
            self._swap(runner)

    before_test_epoch = before_val_epoch
    after_test_epoch = after_val_epoch

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        state = checkpoint['state_dict']
        checkpoint['raw_weights'] = {name: state[name] for name in self.averages}
        state.update({name: gather_to_main(average) for name, average in self.averages.items()})

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        raw = checkpoint.get('raw_weights')
        if runner._resume and raw is not None:
            self.averages = {name: checkpoint['state_dict'][name].clone() for name in raw}
            checkpoint['state_dict'].update(raw)


@contextmanager
def averaged_weights(runner: Runner) -> Iterator[None]:
    """Use the averaged weights within the context, as validation does."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, TrainedWeightsEMAHook)]
    for hook in hooks:
        hook.before_val_epoch(runner)
    try:
        yield
    finally:
        for hook in hooks:
            hook.after_val_epoch(runner)

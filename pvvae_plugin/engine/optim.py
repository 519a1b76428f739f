"""Optimisers for algorithms whose parts are trained apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine import dist
from mmengine.logging import MessageHub
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner, autocast
from torch import nn
from torch.nn.utils import get_total_norm

from pvvae_plugin.functional.sharded import local
from pvvae_plugin.models.checkpoints import rename_optimizers
from pvvae_plugin.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from pvvae_plugin.renaming import warn_renamed


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` that can run in bfloat16 and skips steps whose gradients are not finite.

    bfloat16 has float32's range and so needs no loss scaling; MMEngine's ``AmpOptimWrapper`` demands a GPU.

    A step with a gradient that is not finite is left out: weights and moments stay as they are. Gradients are averaged
    over processes before, so that all of them leave it out together. The message hub counts, see
    :class:`SkippedSteps`; ``FiniteLossHook`` reports and ends the run after too many in a row.

    Args:
        dtype: ``'float32'`` or ``'bfloat16'``; ``--amp`` of the training script sets the latter.

    Attributes:
        part (str): What it trains, for messages and counts.
        parameter_names (dict[int, str]): ``id`` of a parameter -> its name.

    Example:
        >>> from pvvae_plugin.registry import OPTIM_WRAPPERS
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> sgd = torch.optim.SGD([weight], lr=0.5)
        >>> optim = OPTIM_WRAPPERS.build(dict(type='AutocastOptimWrapper', optimizer=sgd, dtype='bfloat16'))
        >>> optim.update_params(weight.sum())
        >>> weight.item()
        0.5
        >>> optim.update_params(weight.sum() * float('nan'))  # the step is skipped
        >>> weight.item()
        0.5
    """

    def __init__(self, *args, dtype: str = 'float32', **kwargs) -> None:
        if dtype not in ('float32', 'bfloat16'):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {dtype!r}")
        super().__init__(*args, **kwargs)
        self.dtype = dtype
        self.part = 'model'
        self.parameter_names: dict[int, str] = {}

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model):
            if self.dtype == 'float32':
                yield
            else:
                with autocast(dtype=torch.bfloat16):
                    yield

    def step(self, **kwargs) -> None:
        """Clip gradients and update, if the gradients are finite."""
        parameters = [p for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        # One pass over the gradients, and one number to the CPU. A process that holds a part of the weights sees a part
        # of the gradients.
        gradients = [gradient for p in parameters if (gradient := local(p.grad)).numel()]
        largest = get_total_norm(gradients, norm_type=math.inf)
        is_bad = torch.logical_not(torch.isfinite(largest)).int()
        dist.all_reduce(is_bad, op='max')
        counts = SkippedSteps(self.message_hub, self.part)
        if is_bad.item():
            bad = [p for p in parameters if not torch.isfinite(local(p.grad)).all()]
            names = [self.parameter_names.get(id(p), 'a parameter') for p in bad]
            counts.add(list(dict.fromkeys(name for some in dist.all_gather_object(names) for name in some)))
        else:
            counts.end_row()
            super().step(**kwargs)

    def follow(self, other: OptimWrapper) -> None:
        """Count iterations as another wrapper does, which has just counted one that this one is about to.

        What starts later than the other would accumulate in another phase after a resume than before.
        """
        self._inner_count = other.inner_count - 1


class SkippedSteps:
    """Steps left out because of gradients that were not finite, counted where checkpoints keep it.

    Args:
        hub: Of the run.
        part: Of the algorithm, which has an optimiser of its own.
    """

    def __init__(self, hub: MessageHub, part: str) -> None:
        self.hub = hub
        self._key = f'skipped_steps_{part}'

    def get(self) -> dict[str, Any]:
        """``total``, ``in_a_row``, and the ``parameters`` whose gradients were not finite the last time."""
        return self.hub.runtime_info.get(self._key, {'total': 0, 'in_a_row': 0, 'parameters': []})

    def add(self, parameters: list[str]) -> None:
        """Count one."""
        before = self.get()
        self._set(before['total'] + 1, before['in_a_row'] + 1, parameters)

    def end_row(self) -> None:
        """Note a step that was made."""
        before = self.get()
        if before['in_a_row']:
            self._set(before['total'], 0, before['parameters'])

    def _set(self, total: int, in_a_row: int, parameters: list[str]) -> None:
        self.hub.update_info(self._key, {'total': total, 'in_a_row': in_a_row, 'parameters': parameters[:20]})


def optim_wrappers(runner: Runner) -> dict[str, OptimWrapper]:
    """A run's optimiser wrappers by the part that each trains."""
    optim = runner.optim_wrapper
    if isinstance(optim, OptimWrapperDict):
        return dict(optim.items())
    return {getattr(optim, 'part', 'model'): optim}


def left_out_steps(runner: Runner) -> bool:
    """Whether the last step of a part was left out."""
    return any(SkippedSteps(runner.message_hub, part).get()['in_a_row'] for part in optim_wrappers(runner))


class CountedOptimWrapperDict(OptimWrapperDict):
    """An ``OptimWrapperDict`` that tells its members the iteration, so accumulation survives a resume."""

    def initialize_count_status(self, model: nn.Module, cur_iter: int, max_iters: int) -> None:
        for wrapper in self.values():
            wrapper.initialize_count_status(model, cur_iter, max_iters)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SubmoduleOptimWrapperConstructor:
    """Build one optimizer for each entry of the algorithm's ``optimized_modules``.

    ::

        optim_wrapper = dict(
            constructor='SubmoduleOptimWrapperConstructor',
            vae=dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=5e-5)),
            discriminator=dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=5e-5)),
        )

    Each entry may hold a ``paramwise_cfg`` of its own, with MMEngine's meaning.

    Example:
        >>> from mmengine.optim import build_optim_wrapper
        >>> from pvvae_plugin.registry import MODELS
        >>> vae = dict(type='PredictiveVAE', latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
        >>> model = MODELS.build(dict(type='VideoAutoencoder', backbone=vae, loss=dict(type='PredictiveReconLoss')))
        >>> config = dict(type='pvvae_plugin.AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=5e-5))
        >>> constructor = 'pvvae_plugin.SubmoduleOptimWrapperConstructor'
        >>> optim = build_optim_wrapper(model, dict(constructor=constructor, vae=config))
        >>> optim.get_lr()
        {'vae.lr': [5e-05]}
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if paramwise_cfg is not None:
            raise ValueError('put paramwise_cfg inside the optimiser it is meant for, e.g. optim_wrapper.vae')
        # An entry of None stands for none: a config that drops the discriminator says so by inheritance.
        self.configs = {name: cfg for name, cfg in optim_wrapper_cfg.items() if cfg is not None}

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        modules = (model.module if is_model_wrapper(model) else model).optimized_modules
        configs = rename_optimizers(self.configs, modules)
        if configs is not self.configs:
            warn_renamed('optim_wrapper.generator', 'optim_wrapper.vae', 'config')
        if set(modules) != set(configs):
            raise ValueError(
                f'the model trains {sorted(modules)}, but optim_wrapper configures {sorted(configs)}: '
                'give one entry for each, by these names'
            )
        wrappers = {}
        for name, module in modules.items():
            config = dict(configs[name])
            build = DefaultOptimWrapperConstructor(config, config.pop('paramwise_cfg', None))
            wrappers[name] = build(module)
            if isinstance(wrappers[name], AutocastOptimWrapper):
                wrappers[name].part = name
                wrappers[name].parameter_names = {id(p): f'{name}.{key}' for key, p in module.named_parameters()}
            if wrappers and name != next(iter(wrappers)) and hasattr(wrappers[name], 'grad_name'):
                wrappers[name].grad_name = f'{name}_{wrappers[name].grad_name}'  # else two curves share one name
        return CountedOptimWrapperDict(**wrappers)

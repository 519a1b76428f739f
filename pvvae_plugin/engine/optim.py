"""Optimizer wrappers for algorithms with separately trained parts."""

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
    """``OptimWrapper`` that supports bfloat16 autocast and skips steps with non-finite gradients.

    bfloat16 has the range of float32 and needs no loss scaling. (MMEngine's ``AmpOptimWrapper`` requires a GPU.)

    A skipped step changes neither weights nor moments. All processes skip it together, because gradients are averaged
    over processes first. Skipped steps are counted in the message hub, see :class:`SkippedSteps`. ``FiniteLossHook``
    reports them and ends the run after too many in a row.

    Args:
        dtype: ``'float32'`` or ``'bfloat16'``. ``--amp`` of the training script sets ``'bfloat16'``.

    Attributes:
        part (str): Name of the trained part, for messages and counts.
        parameter_names (dict[int, str]): Names of the parameters by their ``id``.

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
        """Clip the gradients and update the weights if all gradients are finite."""
        parameters = [p for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        # One pass over the gradients and one transfer to the CPU. A rank with sharded weights sees only its shard of
        # the gradients, so the result is reduced.
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
        """Synchronize the iteration count with another wrapper, which has already counted the current iteration.

        Without this, a part that starts later would accumulate gradients in a different phase after a resume.
        """
        self._inner_count = other.inner_count - 1


class SkippedSteps:
    """Counter of steps skipped because of non-finite gradients, kept in the message hub and its checkpoints.

    Args:
        hub: Message hub of the run.
        part: Name of the part of the algorithm that the optimizer trains.
    """

    def __init__(self, hub: MessageHub, part: str) -> None:
        self.hub = hub
        self._key = f'skipped_steps_{part}'

    def get(self) -> dict[str, Any]:
        """Return ``total``, ``in_a_row``, and the ``parameters`` with non-finite gradients in the last skipped step."""
        return self.hub.runtime_info.get(self._key, {'total': 0, 'in_a_row': 0, 'parameters': []})

    def add(self, parameters: list[str]) -> None:
        """Count one skipped step."""
        before = self.get()
        self._set(before['total'] + 1, before['in_a_row'] + 1, parameters)

    def end_row(self) -> None:
        """Reset ``in_a_row`` after a step that was not skipped."""
        before = self.get()
        if before['in_a_row']:
            self._set(before['total'], 0, before['parameters'])

    def _set(self, total: int, in_a_row: int, parameters: list[str]) -> None:
        self.hub.update_info(self._key, {'total': total, 'in_a_row': in_a_row, 'parameters': parameters[:20]})


def optim_wrappers(runner: Runner) -> dict[str, OptimWrapper]:
    """Return the optimizer wrappers of a run by the name of the part that they train."""
    optim = runner.optim_wrapper
    if isinstance(optim, OptimWrapperDict):
        return dict(optim.items())
    return {getattr(optim, 'part', 'model'): optim}


def left_out_steps(runner: Runner) -> bool:
    """Return whether the last step of any part was skipped."""
    return any(SkippedSteps(runner.message_hub, part).get()['in_a_row'] for part in optim_wrappers(runner))


def advice_after_divergence(runner: Runner, part: str | None = None) -> str:
    """Return what to try after non-finite gradients or weights, given how the run is configured.

    Args:
        runner: The runner.
        part: The part that diverged, if known.
    """
    is_dict = isinstance(runner.optim_wrapper, OptimWrapperDict)
    places = {name: f'optim_wrapper.{name}' if is_dict else 'optim_wrapper' for name in optim_wrappers(runner)}
    low = [places[name] for name, w in optim_wrappers(runner).items() if getattr(w, 'dtype', None) == 'bfloat16']
    rates = ' and '.join(f'{place}.optimizer.lr' for name, place in places.items() if part in (None, name))
    start = f'start from its weights with load_from=WORK_DIR and a lower {rates} (--resume keeps the old learning rate)'
    if not low:
        return f'To continue from the last checkpoint, {start}'
    options = ' '.join(f'{place}.dtype=float32' for place in low)
    return (
        'Resume from the last checkpoint in float32, with --resume and --cfg-options '
        f'{options} and without --amp, or {start}'
    )


class CountedOptimWrapperDict(OptimWrapperDict):
    """``OptimWrapperDict`` that passes the iteration to its members, so gradient accumulation survives a resume."""

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

    Each entry may have its own ``paramwise_cfg``, as in MMEngine.

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
            raise ValueError(
                'optim_wrapper.paramwise_cfg is not supported; move it into an entry, e.g. optim_wrapper.vae'
            )
        # A derived config sets an inherited entry, e.g. the discriminator, to None to remove it.
        self.configs = {name: cfg for name, cfg in optim_wrapper_cfg.items() if cfg is not None}

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        modules = (model.module if is_model_wrapper(model) else model).optimized_modules
        configs = rename_optimizers(self.configs, modules)
        if configs is not self.configs:
            warn_renamed('optim_wrapper.generator', 'optim_wrapper.vae', 'config')
        if set(modules) != set(configs):
            raise ValueError(
                f'the model trains {sorted(modules)}, but optim_wrapper configures {sorted(configs)}: '
                'add one entry per trained part, under the same name'
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
                wrappers[name].grad_name = f'{name}_{wrappers[name].grad_name}'  # separate curves per part
        return CountedOptimWrapperDict(**wrappers)

"""Optimisers for algorithms whose parts are trained apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.runner import autocast
from torch import nn

from pvvae_plugin.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` that can run the forward pass in bfloat16, on a GPU or a CPU.

    bfloat16 has float32's range and so needs no loss scaling; MMEngine's ``AmpOptimWrapper`` demands a GPU.

    Args:
        dtype: ``'float32'`` or ``'bfloat16'``; ``--amp`` of the training script sets the latter.
    """

    def __init__(self, *args, dtype: str = 'float32', **kwargs) -> None:
        if dtype not in ('float32', 'bfloat16'):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {dtype!r}")
        super().__init__(*args, **kwargs)
        self.dtype = dtype

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model):
            if self.dtype == 'float32':
                yield
            else:
                with autocast(dtype=torch.bfloat16):
                    yield


class CountedOptimWrapperDict(OptimWrapperDict):
    """An ``OptimWrapperDict`` that tells its members where the run stands, so that accumulation survives a resume."""

    def initialize_count_status(self, model: nn.Module, cur_iter: int, max_iters: int) -> None:
        for wrapper in self.values():
            wrapper.initialize_count_status(model, cur_iter, max_iters)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SubmoduleOptimWrapperConstructor:
    """Builds one optimiser for each entry of the algorithm's ``optimized_modules``.

    ::

        optim_wrapper = dict(
            constructor='SubmoduleOptimWrapperConstructor',
            generator=dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=5e-5)),
            discriminator=dict(type='AutocastOptimWrapper', optimizer=dict(type='AdamW', lr=5e-5)),
        )

    Each entry may hold a ``paramwise_cfg`` of its own, with MMEngine's meaning.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if paramwise_cfg is not None:
            raise ValueError('put paramwise_cfg inside the optimiser it is meant for, e.g. optim_wrapper.generator')
        # An entry of None stands for none: a config that drops the discriminator says so by inheritance.
        self.configs = {name: cfg for name, cfg in optim_wrapper_cfg.items() if cfg is not None}

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        modules = (model.module if is_model_wrapper(model) else model).optimized_modules
        if set(modules) != set(self.configs):
            raise ValueError(
                f'the model trains {sorted(modules)}, but optim_wrapper configures {sorted(self.configs)}: '
                'give one entry for each, by these names'
            )
        wrappers = {}
        for name, module in modules.items():
            config = dict(self.configs[name])
            build = DefaultOptimWrapperConstructor(config, config.pop('paramwise_cfg', None))
            wrappers[name] = build(module)
            if wrappers and name != next(iter(wrappers)) and hasattr(wrappers[name], 'grad_name'):
                wrappers[name].grad_name = f'{name}_{wrappers[name].grad_name}'  # else two curves share one name
        return CountedOptimWrapperDict(**wrappers)

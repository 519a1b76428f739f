"""MMEngine strategy that trains a generator with its head sharded across processes (FSDP)."""

from __future__ import annotations

import functools
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import mmengine
import torch
from mmengine._strategy import DDPStrategy
from mmengine.device import get_device
from mmengine.optim import BaseOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import set_random_seed
from mmengine.runner.checkpoint import save_checkpoint
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map_only

from pvvae_plugin.functional.sharded import gather_to_main, shard_like, whole
from pvvae_plugin.models.checkpoints import open_checkpoint
from pvvae_plugin.registry import STRATEGIES

from .log_text import hide_messages_not_for_users


@STRATEGIES.register_module()
class GeneratorFSDPStrategy(DDPStrategy):
    """FSDP of the head: weights, gradients and optimizer states are sharded across processes (ZeRO-3).

    The blocks of the head are the entries of its ``ModuleList``s. They are gathered one at a time, for the forward and
    again for the backward pass. The frozen backbone is replicated in every process. MMEngine's ``FSDPStrategy``
    supports a single optimizer, wraps the algorithm and renames its weights. PyTorch's ``fully_shard``, used here,
    changes neither the algorithm nor its ``train_step`` and names. A config without FSDP therefore works unchanged,
    including its optimizers.

    Checkpoints hold full tensors, written by rank 0, as without FSDP. Runs with and without FSDP can resume from each
    other's checkpoints, with any number of processes.

    With gradient accumulation, gradients are reduced in every pass, unlike in DDP: deferring the reduction would keep
    them unsharded.

    Args:
        kwargs: Passed by the runner.

    Raises:
        ValueError: If the processes were not started by a launcher, or the model has no head.

    Example:
        >>> # Needs several processes: bash tools/dist_train.sh configs/dit_pvvae_fsdp.py GPUS
        >>> from pvvae_plugin.config import read_config
        >>> from pvvae_plugin.engine import build_runner
        >>> cfg = read_config('dit_pvvae_fsdp')
        >>> cfg.strategy
        {'type': 'GeneratorFSDPStrategy'}
        >>> runner = build_runner(cfg)  # doctest: +SKIP
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_launcher(self.launcher)

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        return hide_messages_not_for_users(super().build_logger(*args, **kwargs))

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        # FlexibleRunner builds the data loaders first, which draws random numbers. Setting the seed again gives the
        # same initial weights as without FSDP.
        set_random_seed(self.seed, deterministic=self._randomness.get('deterministic', False))
        return super().build_model(model)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if not isinstance(getattr(model, 'head', None), nn.Module):
            raise ValueError(only_for_generators(type(model).__name__))
        mesh = init_device_mesh(torch.device(get_device()).type, (self.world_size,))
        lists = [module for module in model.head.modules() if isinstance(module, nn.ModuleList)]
        for module in (*(block for blocks in lists for block in blocks), model.head):
            # Reshard after every forward pass, including the last: EMA and saving read the shards only.
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        # The head returns a view; nothing writes into it.
        warnings.filterwarnings('ignore', message='FSDP2-wrapped module .* returned a view')
        return model.to(get_device())

    def prepare(self, model: nn.Module | dict, **kwargs: Any) -> Any:
        if self._prepared:
            return self._prepared_components()
        super().prepare(model, **kwargs)
        self._count_from(0)
        return self._prepared_components()

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> BaseOptimWrapper:
        built = super().build_optim_wrapper(optim_wrapper, model)
        for wrapper in _named(built).values():
            if hasattr(wrapper, 'clip_func'):  # clip by the global norm, which MMEngine then logs
                wrapper.clip_func = functools.partial(_clip, wrapper.clip_func)
        return built

    def _count_from(self, iteration: int) -> None:
        """Set the iteration count of the optimizers. MMEngine's strategies do this for a single optimizer only."""
        if hasattr(self, 'optim_wrapper'):
            self.optim_wrapper.initialize_count_status(self.model, iteration, self.dispatch_kwargs['max_iters'])

    def model_state_dict(self) -> dict[str, Tensor]:
        """Return the full weights in rank 0. All processes must call this."""
        return {name: gather_to_main(tensor) for name, tensor in self.model.state_dict().items()}

    def optim_state_dict(self) -> dict:
        """Return the full optimizer states in rank 0, as without FSDP. All processes must call this."""
        return tree_map_only(DTensor, gather_to_main, self.optim_wrapper.state_dict())

    def load_model_state_dict(self, state_dict: Mapping[str, Tensor], **kwargs: Any) -> None:
        own = self.model.state_dict()
        shares = {name: shard_like(t, own[name]) if name in own else t for name, t in state_dict.items()}
        super().load_model_state_dict(shares, **kwargs)

    def load_optim_state_dict(self, state_dict: dict) -> None:
        wrappers = _named(self.optim_wrapper)
        states = state_dict if isinstance(self.optim_wrapper, OptimWrapperDict) else {'': state_dict}
        for name, wrapper in wrappers.items():
            wrapper.load_state_dict(_shard_states(states[name], wrapper.optimizer))

    def save_checkpoint(
        self,
        filename: str,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        extra_ckpt: dict | None = None,
        callback: Callable[[dict], Any] | None = None,
    ) -> None:
        """Write one checkpoint file in rank 0. All processes must call this."""
        extra = {'meta': {}, **(extra_ckpt or {})}
        extra['meta'].update(
            seed=self.seed,
            time=time.strftime('%Y%m%d_%H%M%S', time.localtime()),
            mmengine_version=mmengine.__version__,
        )
        checkpoint = {'state_dict': self.model_state_dict(), **extra}
        if save_optimizer and hasattr(self, 'optim_wrapper'):
            checkpoint['optimizer'] = self.optim_state_dict()
        if save_param_scheduler and hasattr(self, 'param_schedulers'):
            checkpoint['param_schedulers'] = self.scheduler_state_dict()
        if callback is not None:
            callback(checkpoint)  # hooks may gather weights too
        if self.rank == 0:
            save_checkpoint(checkpoint, filename)

    def load_checkpoint(
        self,
        filename: str,
        *,
        strict: bool = False,
        callback: Callable[[dict], Any] | None = None,
        **kwargs: Any,
    ) -> dict:
        """Load a checkpoint of a run with or without FSDP. The file is memory-mapped and shared by the processes.

        Raises:
            ValueError: If the file is damaged, is not a checkpoint, or contains code that loading would execute.
        """
        self.logger.info(f'Load checkpoint from {filename}')
        checkpoint = open_checkpoint(filename)
        if callback is not None:
            callback(checkpoint)
        self.load_model_state_dict(checkpoint.pop('state_dict'), strict=strict)
        return checkpoint

    def resume(self, filename: str, **kwargs: Any) -> dict:
        checkpoint = super().resume(filename, **kwargs)
        self._count_from(checkpoint['meta']['iter'])
        return checkpoint


def check_launcher(launcher: str) -> None:
    if launcher == 'none':
        raise ValueError(
            'GeneratorFSDPStrategy shards the head across processes, but launcher is none. Use '
            'bash tools/dist_train.sh CONFIG GPUS, or disable FSDP with --cfg-options strategy=None'
        )


def only_for_generators(model: str) -> str:
    return (
        f'FSDP shards the head of generators (LatentVideoGenerator), but the model is {model}. Remove strategy '
        'from the config'
    )


def _named(optim_wrapper: BaseOptimWrapper) -> dict[str, OptimWrapper]:
    return dict(optim_wrapper.items()) if isinstance(optim_wrapper, OptimWrapperDict) else {'': optim_wrapper}


def _clip(clip: Callable[..., Tensor | None], parameters: list[Tensor], **kwargs: Any) -> Tensor | None:
    norm = clip(parameters, **kwargs)
    return None if norm is None else whole(norm)


def _shard_states(state_dict: dict, optimizer: torch.optim.Optimizer) -> dict:
    """Shard the states of an optimizer of full weights like its current weights."""
    parameters = [p for group in optimizer.param_groups for p in group['params']]

    def share(value: Any, like: Tensor) -> Any:  # step counts are not sharded
        is_share = isinstance(value, Tensor) and value.ndim > 0 and value.shape == like.shape
        return shard_like(value, like) if is_share else value

    states = {
        index: {key: share(value, parameters[index]) for key, value in state.items()}
        for index, state in state_dict['state'].items()
    }
    return {**state_dict, 'state': states}

"""Training a generator whose head is shared out among the processes (FSDP), as a strategy of MMEngine's."""

from __future__ import annotations

import functools
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


@STRATEGIES.register_module()
class GeneratorFSDPStrategy(DDPStrategy):
    """FSDP of the head: weights, gradients and optimizer states are sharded across processes (ZeRO-3).

    Blocks of the head, which are the entries of each ``ModuleList``, are gathered one at a time for their forward and
    again for their backward pass. The frozen backbone stays whole in every process. MMEngine's ``FSDPStrategy`` knows
    one optimiser, wraps the algorithm and renames its weights; PyTorch's ``fully_shard``, used here, leaves it,
    its ``train_step`` and all names as they are. So the config of the run without FSDP serves, optimisers included.

    Checkpoints are those of a run without FSDP: whole tensors, written by process 0. Either kind of run, with any
    number of processes, resumes from either.

    Accumulated gradients are reduced in every pass, unlike those of DDP: to wait would keep them whole.

    Args:
        kwargs: Given by the runner.

    Raises:
        ValueError: If no launcher started the processes, or the model has no head.

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

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        # This runner makes the data loaders first, which draw numbers. With the seed set again, weights start as those
        # of a run without FSDP.
        set_random_seed(self.seed, deterministic=self._randomness.get('deterministic', False))
        return super().build_model(model)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if not isinstance(getattr(model, 'head', None), nn.Module):
            raise ValueError(only_for_generators(type(model).__name__))
        mesh = init_device_mesh(torch.device(get_device()).type, (self.world_size,))
        lists = [module for module in model.head.modules() if isinstance(module, nn.ModuleList)]
        for module in (*(block for blocks in lists for block in blocks), model.head):
            # Freed after every forward pass, the last one's too: averaging and saving look at shares alone.
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
            if hasattr(wrapper, 'clip_func'):  # clips by the norm over all processes, which MMEngine then logs
                wrapper.clip_func = functools.partial(_clip, wrapper.clip_func)
        return built

    def _count_from(self, iteration: int) -> None:
        """Tell the optimisers where the run stands. MMEngine's strategies forget it where there are several."""
        if hasattr(self, 'optim_wrapper'):
            self.optim_wrapper.initialize_count_status(self.model, iteration, self.dispatch_kwargs['max_iters'])

    def model_state_dict(self) -> dict[str, Tensor]:
        """Whole weights in process 0; all processes must call."""
        return {name: gather_to_main(tensor) for name, tensor in self.model.state_dict().items()}

    def optim_state_dict(self) -> dict:
        """Whole states in process 0, as optimisers of unshared weights have them; all processes must call."""
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
        """Write one file, in process 0; all processes must call."""
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
            callback(checkpoint)  # hooks, which may gather as well
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
        """Load a checkpoint of a run with or without FSDP, whose tensors are mapped: processes share the memory.

        Raises:
            ValueError: If it is damaged, no checkpoint, or holds something that would be run.
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
            'GeneratorFSDPStrategy shares out a head among processes, but no launcher started any: '
            'bash tools/dist_train.sh CONFIG GPUS, or go without by --cfg-options strategy=None'
        )


def only_for_generators(model: str) -> str:
    return (
        f'FSDP is for generators (LatentVideoGenerator), whose head it shares out; the model is {model}: leave '
        'strategy out of its config'
    )


def _named(optim_wrapper: BaseOptimWrapper) -> dict[str, OptimWrapper]:
    return dict(optim_wrapper.items()) if isinstance(optim_wrapper, OptimWrapperDict) else {'': optim_wrapper}


def _clip(clip: Callable[..., Tensor | None], parameters: list[Tensor], **kwargs: Any) -> Tensor | None:
    norm = clip(parameters, **kwargs)
    return None if norm is None else whole(norm)


def _shard_states(state_dict: dict, optimizer: torch.optim.Optimizer) -> dict:
    """States of an optimiser of whole weights, shared out as its weights now are."""
    parameters = [p for group in optimizer.param_groups for p in group['params']]

    def share(value: Any, like: Tensor) -> Any:  # the number of steps is no share of anything
        is_share = isinstance(value, Tensor) and value.ndim > 0 and value.shape == like.shape
        return shard_like(value, like) if is_share else value

    states = {
        index: {key: share(value, parameters[index]) for key, value in state.items()}
        for index, state in state_dict['state'].items()
    }
    return {**state_dict, 'state': states}

"""Data-parallel wrapper for the parts of an algorithm, and CPU-only process groups."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from mmengine.device import get_device
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pvvae_plugin.registry import MODEL_WRAPPERS


@MODEL_WRAPPERS.register_module()
class SubmoduleDistributedDataParallel(nn.Module):
    """Wrap each part of an algorithm that has its own optimizer in ``DistributedDataParallel``.

    A single wrapper around a GAN would wait for gradients of the part that a pass does not use. The wrappers are stored
    in the algorithm's ``parallel`` dict and do not replace its submodules. Parameters keep their names in checkpoints,
    and the algorithm's ``train_step`` is used unchanged.

    Args:
        module: Algorithm with ``optimized_modules`` and ``parallel``.
        kwargs: Passed to each ``DistributedDataParallel``.

    Example:
        >>> # Needs several processes, started by torchrun. The runner builds it from model_wrapper_cfg.
        >>> from pvvae_plugin.registry import MODEL_WRAPPERS, MODELS
        >>> vae = dict(type='PredictiveVAE', latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
        >>> model = MODELS.build(dict(type='VideoAutoencoder', backbone=vae, loss=dict(type='PredictiveReconLoss')))
        >>> config = dict(type='SubmoduleDistributedDataParallel', module=model)
        >>> list(MODEL_WRAPPERS.build(config).module.parallel)  # doctest: +SKIP
        ['backbone']
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        super().__init__()
        self.module = module.to(get_device())
        options = {'broadcast_buffers': False, 'gradient_as_bucket_view': True, **kwargs}
        names = {id(child): name for name, child in module.named_children()}
        with warnings.catch_warnings():
            # Its successor does not exist in older versions of torch.
            warnings.filterwarnings('ignore', message='`broadcast_buffers` is deprecated', category=FutureWarning)
            for part in module.optimized_modules.values():
                if any(p.requires_grad for p in part.parameters()):
                    module.parallel[names[id(part)]] = DistributedDataParallel(part, **options)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def train_step(self, data: dict, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: dict) -> list:
        return self.module.val_step(data)

    def test_step(self, data: dict) -> list:
        return self.module.test_step(data)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Disable gradient synchronization in all parts."""
        with ExitStack() as stack:
            for wrapper in self.module.parallel.values():
                stack.enter_context(wrapper.no_sync())
            yield


def init_cpu_process_group(timeout: float | None = None) -> None:
    """Initialize a gloo process group from torchrun's variables on machines without a GPU.

    MMEngine's own initialization assumes CUDA.

    Args:
        timeout: Seconds that an operation waits for the other processes (default: that of PyTorch, 30 minutes).

    Example:
        >>> # Needs several processes, started by torchrun.
        >>> from pvvae_plugin.engine import init_cpu_process_group
        >>> init_cpu_process_group()  # doctest: +SKIP
        >>> torch.distributed.get_backend()  # on a machine without a GPU  # doctest: +SKIP
        'gloo'
    """
    if not torch.cuda.is_available() and not torch.distributed.is_initialized():
        limit = None if timeout is None else timedelta(seconds=timeout)
        torch.distributed.init_process_group('gloo', timeout=limit)

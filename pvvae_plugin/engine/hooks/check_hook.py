"""Finds at the start what would otherwise fail, or pass unseen, hours later."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from pvvae_plugin.models.pretrained import check_weights
from pvvae_plugin.registry import HOOKS


@HOOKS.register_module()
class StartCheckHook(Hook):
    """Checks clips against the network, and a loaded checkpoint against the model.

    - Training and validation clips must have a length and size the backbone accepts, and be cut into its groups: a
      wrong validation set is found before training, not at the first validation.
    - A checkpoint must hold every weight of the backbone in its shape. MMEngine only warns of missing ones, and the
      run goes on with random weights in their place.
    """

    def before_train(self, runner: Runner) -> None:
        loaders = {'train': runner.train_dataloader}
        if runner.val_loop is not None:
            loaders['val'] = runner.val_dataloader
        backbone = _unwrapped(runner).backbone
        for name, loader in loaders.items():
            for step in getattr(getattr(loader.dataset, 'pipeline', None), 'transforms', []):
                ratio = getattr(step, 'temporal_ratio', backbone.temporal_ratio)
                if ratio != backbone.temporal_ratio:
                    raise ValueError(
                        f'{type(step).__name__} of {name}_dataloader has temporal_ratio={ratio}, the backbone '
                        f'{backbone.temporal_ratio}: set the former to {backbone.temporal_ratio}'
                    )
            inputs = loader.dataset[0]['inputs']
            if inputs.dtype != torch.uint8:
                continue  # moments of cached latents
            shape = inputs.shape
            try:
                backbone.check_video(torch.empty(1, *shape, device='meta'))
            except ValueError as error:
                raise ValueError(f'clips of {name}_dataloader do not fit the backbone: {error}') from error

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        state = checkpoint.get('state_dict', checkpoint)
        weights = _unwrapped(runner).state_dict()
        check_weights({name: tensor for name, tensor in weights.items() if name.startswith('backbone.')}, state)


def _unwrapped(runner: Runner) -> torch.nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model

"""Keeps the frozen VAE out of a generator's checkpoints, and its name in them."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from pvvae_plugin.models.checkpoints import check_backbone_source, check_generator_config, generator_config
from pvvae_plugin.registry import HOOKS

STATISTICS = ('backbone.latent_mean', 'backbone.latent_std')


@HOOKS.register_module()
class FrozenBackboneHook(Hook):
    """Let checkpoints of a :class:`LatentVideoGenerator` name their VAE (path, SHA-256) instead of holding it.

    The latents' statistics stay in, and the configs of VAE and head are written down. On loading, a checkpoint made
    with another VAE is refused, whose latents mean something else, and so is one of another network whose weights have
    the same shapes.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='FrozenBackboneHook'))  # an entry of custom_hooks
        >>> sorted(hook.get_triggered_stages())
        ['after_load_checkpoint', 'before_save_checkpoint']
    """

    priority = 'ABOVE_NORMAL'  # before StartCheckHook, which asks for every weight of the backbone

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        state = checkpoint['state_dict']
        for name in [n for n in state if n.startswith('backbone.') and n not in STATISTICS]:
            del state[name]
        checkpoint['backbone_source'] = _unwrapped(runner).backbone_source
        checkpoint['generator_config'] = generator_config(runner.cfg.model)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = _unwrapped(runner)
        check_backbone_source(checkpoint.get('backbone_source'), model.backbone_source)
        check_generator_config(checkpoint.get('generator_config'), generator_config(runner.cfg.model))
        own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith('backbone.')}
        checkpoint['state_dict'] = {**own, **checkpoint['state_dict']}


def _unwrapped(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model

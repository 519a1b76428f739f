"""Hook that replaces the frozen VAE in a generator's checkpoints by its source."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn

from pvvae_plugin.models.checkpoints import check_backbone_source, check_generator_config, generator_config
from pvvae_plugin.models.generator_checks import (
    STATISTICS,
    recorded_shapes,
    shape_records,
    warn_of_unknown_vae,
    warn_of_vae,
)
from pvvae_plugin.registry import HOOKS


@HOOKS.register_module()
class FrozenBackboneHook(Hook):
    """Store the source of the VAE (path, SHA-256) in :class:`LatentVideoGenerator` checkpoints, not its weights.

    Checkpoints keep the latent statistics and record the configs of VAE and head, and the lengths and sizes of the
    training clips. Loading a checkpoint raises an error
    if it was trained with another VAE, or if its network differs, even if all weights have the same shapes. A VAE with
    random weights, an unfinished one, and a checkpoint that does not record its VAE give a warning.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='FrozenBackboneHook'))  # an entry of custom_hooks
        >>> sorted(hook.get_triggered_stages())
        ['after_load_checkpoint', 'before_save_checkpoint', 'before_train']
    """

    priority = 'ABOVE_NORMAL'  # before StartCheckHook, which requires all weights of the backbone

    def before_train(self, runner: Runner) -> None:
        model = _unwrapped(runner)
        warn_of_vae(model.backbone_source, model.backbone)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        state = checkpoint['state_dict']
        for name in [n for n in state if n.startswith('backbone.') and n not in STATISTICS]:
            del state[name]
        model = _unwrapped(runner)
        checkpoint['backbone_source'] = model.backbone_source
        checkpoint['generator_config'] = {
            **generator_config(runner.cfg.model),
            'class_dropout': model.class_dropout,
        }
        checkpoint['trained_on'] = shape_records(model.trained_on, model.backbone)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = _unwrapped(runner)
        path = runner._load_from or 'the checkpoint'  # None if a run resumes the last one
        warn_of_unknown_vae(path, checkpoint, model.backbone_source, model.backbone)
        check_backbone_source(checkpoint.get('backbone_source'), model.backbone_source)
        trained = checkpoint.get('generator_config')
        check_generator_config(trained, generator_config(runner.cfg.model))
        if not isinstance(runner._train_loop, BaseLoop):  # a test: guidance depends on the training
            model.class_dropout = (trained or {}).get('class_dropout', model.class_dropout)
        model.trained_on = recorded_shapes(checkpoint)
        own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith('backbone.')}
        checkpoint['has_statistics'] = all(name in checkpoint['state_dict'] for name in STATISTICS)
        checkpoint['state_dict'] = {**own, **checkpoint['state_dict']}


def _unwrapped(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model

"""A trained generator from its config and checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.config import Config
from mmengine.device import get_device

from pvvae_plugin.models import LatentVideoGenerator
from pvvae_plugin.models.checkpoints import (
    check_backbone_source,
    check_checkpoint,
    check_generator_config,
    check_weights,
    generator_config,
    resolve_checkpoint,
)
from pvvae_plugin.registry import MODELS
from pvvae_plugin.safe_globals import load_safely

STATISTICS = ('backbone.latent_mean', 'backbone.latent_std')


def load_generator(cfg: Config, checkpoint: str, raw_weights: bool = False) -> LatentVideoGenerator:
    """Build a generator and load a checkpoint, which names its VAE instead of holding it.

    Args:
        cfg: Config of the run.
        checkpoint: File, or work directory of the run.
        raw_weights: Take the weights as they were trained, not their averages, which look bad early in a run.

    Returns:
        On this process's device, in evaluation mode.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the config is not of a generator, or the checkpoint of another one or on another VAE, or it
            holds no raw weights.

    Example:
        >>> from pvvae_plugin.config import read_config
        >>> from pvvae_plugin.registry import MODELS
        >>> from pvvae_plugin.sampling import load_generator
        >>> cfg = read_config('dit_demo', {'model.backbone_checkpoint': None})
        >>> torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), 'generator.pth')  # a run trains one
        >>> load_generator(cfg, 'generator.pth').head.depth
        4
    """
    path = resolve_checkpoint(checkpoint)
    check_checkpoint(path)
    if 'head' not in cfg.model:
        raise ValueError(f'{cfg.filename} is no config of a generator: model.type is {cfg.model.type}, without a head')
    model = MODELS.build(cfg.model)
    # Mapped: of the optimiser's state, as large as all else, nothing is read.
    record = load_safely(path)
    check_backbone_source(record.get('backbone_source'), model.backbone_source)
    check_generator_config(record.get('generator_config'), generator_config(cfg.model))
    trained = record.get('generator_config') or {'condition_prob': model.condition_prob}
    if model.condition_prob and not trained['condition_prob']:
        raise ValueError(
            f'{path} was trained with condition_prob=0 and cannot continue frames: leave model.condition_prob at 0'
        )
    state = record['state_dict']
    if raw_weights:
        if not record.get('raw_weights'):
            raise ValueError(
                f'{path} holds no averages of weights (it was written without TrainedWeightsEMAHook): those it holds '
                'are the raw ones; leave out raw_weights'
            )
        state = {**state, **record['raw_weights']}
    check_weights({name: p for name, p in model.state_dict().items() if name.startswith('head.')}, state)
    missing = [name for name in STATISTICS if name not in state]
    if missing:
        raise ValueError(
            f'{path} lacks {" and ".join(missing)}, without which its latents cannot be decoded: train with '
            'LatentStatisticsHook and FrozenBackboneHook'
        )
    model.load_state_dict(state, strict=False)
    return model.to(get_device()).eval()


def resolve_labels(
    given: Sequence[str] | None, names: Sequence[str] | None, num_classes: int | None
) -> list[int] | None:
    """Convert classes, by name or number, to numbers.

    Args:
        given: Names or numbers, a name first where a text is both; None for every class once.
        names: Of the classes, where they are known.
        num_classes: How many the network knows; None for an unconditional one.

    Returns:
        Numbers, or None for an unconditional network.

    Raises:
        ValueError: If there is no such class, or classes are not wanted.

    Example:
        >>> from pvvae_plugin.sampling import resolve_labels
        >>> resolve_labels(['jump', '0'], names=['run', 'jump'], num_classes=2)
        [1, 0]
        >>> resolve_labels(None, names=None, num_classes=3)  # every class once
        [0, 1, 2]
    """
    if num_classes is None:
        if given is not None:
            raise ValueError('this generator is unconditional (model.head.num_classes=None): give no labels')
        return None
    if given is None:
        return list(range(num_classes))
    numbers = {str(number): number for number in range(num_classes)}
    numbers |= {name: number for number, name in enumerate(names or ())}
    unknown = [text for text in given if text not in numbers]
    if unknown:
        known = f', {", ".join(names[:10])}{", ..." if len(names) > 10 else ""}' if names else ''
        raise ValueError(f'no class {unknown[0]!r}: valid are 0..{num_classes - 1}{known}')
    return [numbers[text] for text in given]

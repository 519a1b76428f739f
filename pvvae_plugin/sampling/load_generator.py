"""Loading a trained generator from its config and checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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
    unwrap_names,
)
from pvvae_plugin.models.generator_checks import STATISTICS, recorded_shapes, warn_of_unknown_vae
from pvvae_plugin.registry import MODELS
from pvvae_plugin.safe_globals import load_safely


def load_generator(
    cfg: Config, checkpoint: str, raw_weights: bool = False, device: str | torch.device | None = None
) -> LatentVideoGenerator:
    """Build a generator and load its checkpoint. The checkpoint stores the path and digest of the VAE, not its weights.

    Args:
        cfg: Config of the run.
        checkpoint: Checkpoint file, or work directory of the run.
        raw_weights: Load the raw trained weights instead of their EMA. Early in a run, the EMA gives poor samples.
        device: Device of the generator; that of this process if None.

    Returns:
        The generator in evaluation mode.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the config is not that of a generator, the checkpoint belongs to another generator or another
            VAE, or ``raw_weights`` is set and the checkpoint has none.

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
        raise ValueError(
            f'{cfg.filename} is not a generator config: model.type is {cfg.model.type}, without a head; use a config '
            'such as dit_demo'
        )
    model = MODELS.build(cfg.model)
    # Memory-mapped, so the optimizer state (as large as the rest) is never read.
    record = load_safely(path)
    warn_of_unknown_vae(path, record, model.backbone_source, model.backbone)
    check_backbone_source(record.get('backbone_source'), model.backbone_source)
    check_generator_config(record.get('generator_config'), generator_config(cfg.model))
    trained = record.get('generator_config') or {'condition_prob': model.condition_prob}
    if model.condition_prob and not trained['condition_prob']:
        raise ValueError(
            f'{path} was trained with condition_prob=0 and cannot continue frames: set model.condition_prob to 0'
        )
    model.class_dropout = trained.get('class_dropout', model.class_dropout)  # checkpoints of earlier versions lack it
    state = record['state_dict']
    if raw_weights:
        if not record.get('raw_weights'):
            raise ValueError(
                f'{path} was written without TrainedWeightsEMAHook: its weights are already the raw ones; leave '
                'raw_weights off'
            )
        state = {**state, **record['raw_weights']}
    state = unwrap_names(state, model.state_dict())
    check_weights({name: p for name, p in model.state_dict().items() if name.startswith('head.')}, state)
    missing = [name for name in STATISTICS if name not in state]
    if missing:
        raise ValueError(
            f'{path} lacks {" and ".join(missing)}, which are needed to decode latents: train with '
            'LatentStatisticsHook and FrozenBackboneHook'
        )
    model.load_state_dict(state, strict=False)
    model.trained_on = recorded_shapes(record)
    return model.to(device or get_device()).eval()


def resolve_labels(
    given: Sequence[str] | None, names: Sequence[str] | None, num_classes: int | None
) -> list[int] | None:
    """Convert class names or numbers to class numbers.

    Args:
        given: Names or numbers. A text that is both is read as a name. None selects every class once.
        names: Class names, or None if unknown.
        num_classes: Number of classes of the network. None for an unconditional network.

    Returns:
        Class numbers, or None for an unconditional network.

    Raises:
        ValueError: If a class does not exist, or the network is unconditional and classes are given.

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

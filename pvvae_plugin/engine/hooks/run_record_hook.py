"""Hook that compares the settings of a run with those of its checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from pvvae_plugin.models.checkpoints import IRRELEVANT, bare_type
from pvvae_plugin.registry import HOOKS

# The network is the same for both kinds of padding: the paper's ablation starts from weights of the other kind.
EXCHANGEABLE = (*IRRELEVANT, 'padding')
# Config entries that determine the rest of a run.
RECORDED = (
    'model',
    'train_dataloader',
    'optim_wrapper',
    'train_cfg',
    'auto_scale_lr',
    'strategy',
    'default_hooks',
    'custom_hooks',
    'val_dataloader',
    'val_evaluator',
)
# These differences have their own messages.
REPORTED = re.compile(r'train_dataloader\.batch_size|optim_wrapper\.(\w+\.)?(optimizer|accumulative_counts)\b')
MAX_LISTED, MAX_LENGTH = 20, 120


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Store the settings of a run in its checkpoints, and compare them when a checkpoint is loaded.

    - A VAE that was built from files is described, so the checkpoint can be exported without them.
    - A checkpoint of a VAE with another architecture raises an error, even if all weights have the same shapes.
    - A resumed run must keep its seed.
    - Changes of the batch size, the number of processes or the accumulation count give a warning. The position in the
      data is kept.
    - Changes of optimizers and schedules give a warning and do *not* take effect, because resume restores their state.
    - Other changes of the config, e.g. of the data or the loss, take effect, with one warning per entry.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='RunRecordHook'))  # an entry of custom_hooks
        >>> sorted(hook.get_triggered_stages())
        ['after_load_checkpoint', 'before_save_checkpoint']
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['run_settings'] = run_settings(runner)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        backbone = getattr(model, 'backbone', None)
        if getattr(backbone, 'source', None):  # export needs the network, but its files may be gone
            checkpoint['vae'] = backbone.describe()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the settings of the checkpoint with those of this run.

        Raises:
            ValueError: If the VAE differs, or the seed of a resumed run.
        """
        recorded = checkpoint.get('run_settings')
        if recorded is None:
            return
        here = run_settings(runner)
        layout = [
            text
            for path, text in _differences(recorded['backbone'], here['backbone'])
            if path.split('.')[0] not in EXCHANGEABLE
        ]
        if layout:
            raise ValueError(
                f'the checkpoint is of another VAE (checkpoint -> config): model.backbone.{"; ".join(layout)}. Its '
                'weights would give wrong results here; use the config it was trained with'
            )
        if not runner._resume:
            return
        if recorded['seed'] != here['seed']:
            raise ValueError(
                f'the run was started with seed {recorded["seed"]} and cannot be resumed with seed '
                f'{here["seed"]}, which draws other data; pass --seed {recorded["seed"]}'
            )
        for text in (text for _, text in _differences(recorded['step'], here['step'])):
            runner.logger.warning(
                f'resumed with other settings (checkpoint -> config): {text}. The position in the data is kept'
            )
        for text in (text for _, text in _differences(recorded['kept'], here['kept'])):
            runner.logger.warning(
                f'{text} (checkpoint -> config) has no effect on a resumed run, which keeps its optimizers and '
                'schedules; to change them, start a new run with load_from=WORK_DIR and another --work-dir'
            )
        # Checkpoints of earlier versions do not record the config.
        differing = _differences(recorded.get('config', here['config']), here['config'])
        changes = [text for path, text in differing if not REPORTED.match(path)]
        for text in changes[:MAX_LISTED]:
            runner.logger.warning(f'resumed with another setting (checkpoint -> config): {text}')
        if len(changes) > MAX_LISTED:
            runner.logger.warning(f'resumed with {len(changes) - MAX_LISTED} more settings that differ')


def run_settings(runner: Runner) -> dict[str, Any]:
    """Return plain settings of a run: ``backbone``, ``frames``, ``seed``, ``step``, ``kept`` and ``config``."""
    cfg = runner.cfg
    optim = cfg.get('optim_wrapper') or {}
    wrappers = {'model': optim} if 'optimizer' in optim else {k: v for k, v in optim.items() if isinstance(v, dict)}
    loader = cfg.get('train_dataloader') or {}
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    settings = {
        'backbone': {**backbone, 'type': bare_type(backbone.get('type', 'None'))},
        'frames': _clip_length(loader.get('dataset') or {}),
        'seed': runner.seed,
        'step': {
            'train_dataloader.batch_size': loader.get('batch_size'),
            'processes': get_world_size(),
            **{f'{name}.accumulative_counts': entry.get('accumulative_counts', 1) for name, entry in wrappers.items()},
        },
        'kept': {
            **{f'optim_wrapper.{name}.optimizer': entry.get('optimizer') for name, entry in wrappers.items()},
            'param_scheduler': cfg.get('param_scheduler'),
        },
        'config': {name: cfg.get(name) for name in RECORDED},
    }
    return json.loads(json.dumps(settings, default=str))


def _clip_length(dataset: Mapping) -> int | None:
    """Return the number of frames of a dataset's clips, or None if its config does not set it."""
    return _clip_length(dataset['dataset']) if 'dataset' in dataset else dataset.get('clip_len')


def _differences(there: Any, here: Any, path: str = '') -> Iterator[tuple[str, str]]:
    """Yield the place and a description of each value that differs."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted({*there, *here}):
            yield from _differences(there.get(key), here.get(key), f'{path}.{key}' if path else key)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for i, (a, b) in enumerate(zip(there, here, strict=True)):
            yield from _differences(a, b, f'{path}.{i}')
    elif there != here:
        yield path, f'{path}={_brief(there)} -> {_brief(here)}'


def _brief(value: Any) -> str:
    """Return the value as text of limited length, and only the types of a list of components."""
    if isinstance(value, list):
        value = [entry.get('type', entry) if isinstance(entry, Mapping) else entry for entry in value]
    text = 'not set' if value is None else repr(value)
    return text if len(text) <= MAX_LENGTH else f'{text[:MAX_LENGTH]}...'

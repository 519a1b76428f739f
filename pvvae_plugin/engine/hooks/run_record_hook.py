"""Says what a resumed run does otherwise than before, and refuses what it could not do rightly."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pvvae_plugin.models.checkpoints import IRRELEVANT
from pvvae_plugin.registry import HOOKS

# Two ways to fill the places of dropped groups in one network: the paper's ablation starts from the other's weights.
EXCHANGEABLE = (*IRRELEVANT, 'padding')


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Write the settings that a run depends on into its checkpoints, and compare them when one is loaded.

    - A VAE of another layout is refused, even where all weights have the same shapes.
    - A resumed run must keep its seed. Another batch size, number of processes or accumulation is reported: the place
      in the data is kept. So are other settings of optimisers and schedules, which do *not* take effect: they come
      back with their state.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='RunRecordHook'))  # an entry of custom_hooks
        >>> sorted(hook.get_triggered_stages())
        ['after_load_checkpoint', 'before_save_checkpoint']
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['run_settings'] = run_settings(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare.

        Raises:
            ValueError: If the network, or the seed of a resumed run, is another.
        """
        recorded = checkpoint.get('run_settings')
        if recorded is None:
            return
        here = run_settings(runner)
        layout = [
            text for name, text in _differences(recorded['backbone'], here['backbone']) if name not in EXCHANGEABLE
        ]
        if layout:
            raise ValueError(
                f'the checkpoint is of another VAE (there -> here): model.backbone.{"; ".join(layout)}. Its weights '
                'would compute something else here: use its config'
            )
        if not runner._resume:
            return
        if recorded['seed'] != here['seed']:
            raise ValueError(
                f'the run was started with seed {recorded["seed"]} and cannot go on with {here["seed"]}, which stands '
                f'for other data: give --seed {recorded["seed"]}'
            )
        for text in (text for _, text in _differences(recorded['step'], here['step'])):
            runner.logger.warning(
                f'resumed otherwise than before (there -> here): {text}. The data go on as they would'
            )
        for text in (text for _, text in _differences(recorded['kept'], here['kept'])):
            runner.logger.warning(
                f'{text} (there -> here) has no effect on a resumed run, which keeps its optimisers and schedules: to '
                'change them start from the weights, load_from=WORK_DIR and another --work-dir'
            )


def run_settings(runner: Runner) -> dict[str, Any]:
    """What a run depends on, as plain values: ``backbone``, ``seed``, ``step``, and ``kept`` by a resumed run."""
    cfg = runner.cfg
    optim = cfg.get('optim_wrapper') or {}
    wrappers = {'model': optim} if 'optimizer' in optim else {k: v for k, v in optim.items() if isinstance(v, dict)}
    loader = cfg.get('train_dataloader') or {}
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    settings = {
        'backbone': {**backbone, 'type': str(backbone.get('type')).split('.')[-1]},
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
    }
    return json.loads(json.dumps(settings, default=str))


def _differences(there: Any, here: Any, path: str = '') -> Iterator[tuple[str, str]]:
    """First name and description of each value that differs."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted({*there, *here}):
            yield from _differences(there.get(key), here.get(key), f'{path}.{key}' if path else key)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for i, (a, b) in enumerate(zip(there, here, strict=True)):
            yield from _differences(a, b, f'{path}.{i}')
    elif there != here:
        yield path.split('.')[0], f'{path}={there!r} -> {here!r}'

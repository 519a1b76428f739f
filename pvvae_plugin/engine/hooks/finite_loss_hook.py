"""Reports steps that were left out, and stops a run that makes no others."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from pvvae_plugin.registry import HOOKS

from ..optim import AutocastOptimWrapper, SkippedSteps, optim_wrappers
from .checkpoint_hook import AtomicCheckpointHook


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Watch losses and gradients for values that are not finite.

    :class:`AutocastOptimWrapper` makes no step of such gradients. Each is reported here with the term, or the
    parameter, that was not finite, and counted in the log as ``skipped_PART``. After too many in a row the run ends.
    The weights are those of the last step that was made; they are saved beside the checkpoints, not among them.

    Args:
        max_in_a_row: How many steps may be left out one after another.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='FiniteLossHook', max_in_a_row=5))  # an entry of custom_hooks
        >>> hook.max_in_a_row
        5
    """

    def __init__(self, max_in_a_row: int = 10) -> None:
        if not isinstance(max_in_a_row, int) or max_in_a_row < 1:
            raise ValueError(f'max_in_a_row must be a positive integer, got {max_in_a_row!r}')
        self.max_in_a_row = max_in_a_row
        self._seen: dict[str, int] = {}

    def before_train(self, runner: Runner) -> None:
        for part in optim_wrappers(runner):
            self._seen[part] = SkippedSteps(runner.message_hub, part).get()['total']

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the logged values, which :class:`ClipTrainLoop` has copied to the host.

        Raises:
            FloatingPointError: After too many steps without an update, naming terms and parameters; at once for an
                optimiser that does not leave such steps out.
        """
        values = {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in (outputs or {}).items()
            if name.startswith('loss')
        }
        bad = [f'{name}={value}' for name, value in values.items() if not math.isfinite(value)]
        wrappers = optim_wrappers(runner)
        if bad and not all(isinstance(wrapper, AutocastOptimWrapper) for wrapper in wrappers.values()):
            raise FloatingPointError(f'iteration {runner.iter}: {", ".join(bad)}. {_advice("")}')
        for part in wrappers:
            counts = SkippedSteps(runner.message_hub, part).get()
            if counts['total'] == self._seen.get(part, 0):
                continue
            self._seen[part] = counts['total']
            runner.message_hub.update_scalar(f'train/skipped_{part}', counts['total'])
            of = counts['parameters']
            what = ', '.join(bad) or f'the gradient of {of[0]}{f" and {len(of) - 1} more" if len(of) > 1 else ""}'
            if counts['in_a_row'] >= self.max_in_a_row:
                self._stop(runner, part, what, counts['in_a_row'])
            runner.logger.warning(
                f'iteration {runner.iter}: no step of the {part}, not finite: {what} ({counts["in_a_row"]} in a row, '
                f'{counts["total"]} in all)'
            )

    def _stop(self, runner: Runner, part: str, what: str, in_a_row: int) -> None:
        hook = next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)
        saved = ''
        if hook is not None:
            with suppress(OSError):  # a full disk must not hide what happened
                saved = hook.save_apart(runner, f'diverged_iter_{runner.iter + 1}.pth')
        raise FloatingPointError(
            f'iteration {runner.iter}: the {part} made none of the last {in_a_row} steps, not finite: {what}. '
            + _advice(saved)
        )


def _advice(saved: str) -> str:
    where = f'The state is in {saved}, to look at. ' if saved else ''
    return (
        f'{where}Go on from the last checkpoint with --resume and without --amp, or start from its weights, '
        'load_from=WORK_DIR, with a lower optim_wrapper.*.optimizer.lr: --resume keeps the rate that it had'
    )

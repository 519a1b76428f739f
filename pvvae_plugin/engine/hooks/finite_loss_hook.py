"""Hook that reports skipped steps and stops a run after too many in a row."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from pvvae_plugin.registry import HOOKS

from ..optim import AutocastOptimWrapper, SkippedSteps, advice_after_divergence, optim_wrappers
from .checkpoint_hook import AtomicCheckpointHook


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Monitor losses and gradients for non-finite values.

    :class:`AutocastOptimWrapper` skips steps with non-finite gradients. This hook logs a warning for each skipped step,
    with the loss term or parameter that is not finite, and logs the count as ``skipped_PART``. After too many skipped
    steps in a row the run ends. The weights of the last good step are saved to ``diverged_iter_N.pth``, which
    ``--resume`` ignores.

    Args:
        max_in_a_row: Number of consecutive skipped steps after which the run ends.

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
        """Check the logged values, which :class:`ClipTrainLoop` has copied to the host.

        Raises:
            FloatingPointError: After too many skipped steps in a row, or at the first non-finite loss if an optimizer
                does not skip such steps. The message names the loss terms or parameters.
        """
        values = {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in (outputs or {}).items()
            if 'loss' in name  # MMEngine adds up these
        }
        bad = [f'{name}={value}' for name, value in values.items() if not math.isfinite(value)]
        wrappers = optim_wrappers(runner)
        if bad and not all(isinstance(wrapper, AutocastOptimWrapper) for wrapper in wrappers.values()):
            raise FloatingPointError(f'iteration {runner.iter}: {", ".join(bad)}. {advice_after_divergence(runner)}')
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
                f'iteration {runner.iter}: skipped the step of the {part}, not finite: {what} '
                f'({counts["in_a_row"]} in a row, {counts["total"]} in total)'
            )

    def _stop(self, runner: Runner, part: str, what: str, in_a_row: int) -> None:
        hook = next((hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)
        saved = ''
        if hook is not None:
            with suppress(OSError):  # a full disk must not hide the original error
                path = hook.save_apart(runner, f'diverged_iter_{runner.iter + 1}.pth')
                saved = f'The state is saved in {path} for inspection. '
        raise FloatingPointError(
            f'iteration {runner.iter}: the {part} skipped the last {in_a_row} steps, not finite: {what}. {saved}'
            + advice_after_divergence(runner, part)
        )

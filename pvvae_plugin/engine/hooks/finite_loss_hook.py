"""Stops a run that has diverged."""

from __future__ import annotations

import math
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from pvvae_plugin.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends the run at the first loss that is not finite, before a checkpoint of it pushes good ones out."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look at the logged values, which MMEngine brings to the CPU in every iteration anyway.

        Raises:
            FloatingPointError: Naming the terms.
        """
        losses = {name: value for name, value in (outputs or {}).items() if name.startswith('loss')}
        values = {name: value.item() if isinstance(value, Tensor) else value for name, value in losses.items()}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if bad:
            raise FloatingPointError(
                f'iteration {runner.iter}: {", ".join(f"{name}={value}" for name, value in bad.items())}. Nothing of '
                'it was saved. Go on from the last checkpoint with --resume and without --amp, or start from its '
                'weights, load_from=WORK_DIR, with a lower optim_wrapper.*.optimizer.lr: --resume keeps '
                'the rate that it had'
            )

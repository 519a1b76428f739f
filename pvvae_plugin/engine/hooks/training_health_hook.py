"""Hook that warns of VAE training failures with finite losses."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.runner import Runner

from pvvae_plugin.registry import HOOKS

LOWEST_KL = 'lowest_kl'  # in the message hub, and therefore in checkpoints


@HOOKS.register_module()
class TrainingHealthHook(Hook):
    """Warn of an exploding KL term or a winning discriminator, based on means over ``window`` iterations.

    - Exploding KL term: its mean reaches ``kl_factor`` times the lowest mean so far. The ratio is logged as
      ``kl_growth``. The latents then leave the scale that the decoder, and later a generator, expects. The loss does
      not show this, because the KL weight is only 1e-6.
    - Winning discriminator: it almost always distinguishes real clips from reconstructions (``disc_accuracy`` in the
      log), so its gradient teaches the VAE little or nothing.

    Args:
        window: Number of iterations per mean.
        kl_factor: Growth of the KL term that triggers a warning.
        max_accuracy: Accuracy of the discriminator that triggers a warning.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='TrainingHealthHook', window=100, kl_factor=5.0))  # an entry of custom_hooks
        >>> hook.window, hook.kl_factor, hook.max_accuracy
        (100, 5.0, 0.98)
    """

    def __init__(self, window: int = 200, kl_factor: float = 10.0, max_accuracy: float = 0.98) -> None:
        if window < 1 or kl_factor <= 1 or not 0.5 < max_accuracy <= 1:
            raise ValueError(
                'window must be at least 1, kl_factor above 1 and max_accuracy in (0.5, 1], got '
                f'{window}, {kl_factor} and {max_accuracy}'
            )
        self.window = window
        self.kl_factor = kl_factor
        self.max_accuracy = max_accuracy

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if not self.every_n_train_iters(runner, self.window):
            return
        hub = runner.message_hub
        kl = self._mean(hub, 'kl')
        if kl is not None:
            lowest = min(kl, hub.runtime_info.get(LOWEST_KL, kl))
            hub.update_info(LOWEST_KL, lowest)
            growth = kl / max(lowest, 1e-12)
            hub.update_scalar('train/kl_growth', growth)
            if growth >= self.kl_factor:
                runner.logger.warning(
                    f'the KL term has grown to {kl:.3g}, {growth:.0f} times its lowest mean over {self.window} '
                    'iterations; the scale of the latents drifts. Lower the learning rate or raise model.loss.kl_weight'
                )
        accuracy = self._mean(hub, 'disc_accuracy')
        if accuracy is not None and accuracy >= self.max_accuracy:
            runner.logger.warning(
                f'the discriminator classifies {accuracy:.1%} of clips correctly over {self.window} iterations; the '
                'adversarial loss has little effect. Lower optim_wrapper.discriminator.optimizer.lr, or start it later '
                '(model.adversarial.start_iter)'
            )

    def _mean(self, hub: MessageHub, name: str) -> float | None:
        """Return the mean over the window, or None if there are fewer values."""
        buffer = hub.log_scalars.get(f'train/{name}')
        if buffer is None or len(buffer.data[0]) < self.window:
            return None
        return float(buffer.mean(self.window))

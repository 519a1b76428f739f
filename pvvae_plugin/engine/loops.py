"""Training by iterations that resumes where it stood."""

from __future__ import annotations

from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import nn

from pvvae_plugin.registry import LOOPS


@LOOPS.register_module()
class ClipTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` whose data go on after a resume without reading the past again.

    MMEngine's loop draws, and so decodes, every batch of the past. Here the sampler is told how much was consumed.
    Needs a sampler with ``advance(num_samples)``, such as ``InfiniteClipSampler``, or a batch sampler with
    ``advance(num_batches)``.
    """

    def run(self) -> nn.Module:
        runner = self.runner
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        if self._iter > 0:
            self._skip_past_batches()
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            last = self._iter == self._max_iters
            due = self._iter >= self.val_begin and (self._iter % self.val_interval == 0 or last)
            if runner.val_loop is not None and due:
                runner.val_loop.run()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def _skip_past_batches(self) -> None:
        loader = self.dataloader
        if hasattr(loader.batch_sampler, 'advance'):
            loader.batch_sampler.advance(self._iter)
        elif hasattr(loader.sampler, 'advance'):
            loader.sampler.advance(self._iter * loader.batch_size)
        else:
            raise TypeError(
                f'{type(loader.sampler).__name__} cannot resume in the middle: it has no advance(num_samples). '
                "Use InfiniteClipSampler, or MMEngine's IterBasedTrainLoop, which reads all past data again"
            )
        self.dataloader_iterator = _InfiniteDataloaderIterator(loader)

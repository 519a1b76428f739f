"""Iteration-based training loop with exact resume and a clean stop."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin.datasets.checking.stuck_workers import (
    DataWorkerError,
    describe_stuck,
    is_of_workers,
    kill_workers,
)
from pvvae_plugin.functional.keyed_random import derive_key
from pvvae_plugin.registry import LOOPS

from .data_workers import kill_workers_at_exit, leave_worker_failures_to_the_loader, prepare_workers
from .hooks.checkpoint_hook import AtomicCheckpointHook
from .hooks.ema_hook import TrainedWeightsEMAHook
from .optim import optim_wrappers
from .stop_request import FAILED, STOP, StopRequest

# Keys in the message hub, and therefore in checkpoints.
SAMPLES_SEEN = 'samples_seen'  # by all processes together
VALIDATED = 'last_validation'  # not val...: MMEngine would log it with the metrics


@LOOPS.register_module()
class ClipTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that can be stopped at any iteration and resumes with the same results.

    - On resume, the sampler skips the samples that all processes have consumed without reading them. (MMEngine's loop
      decodes every past batch.) The batch size and the number of processes may change. The loop needs a sampler with
      ``advance(num_samples)``, such as ``InfiniteClipSampler``, or a batch sampler with
      ``advance(num_batches, num_samples)``.
    - Before each step, all global random generators are seeded from the run's seed, the iteration and the rank. Random
      numbers drawn in a step do not depend on earlier draws.
    - SIGTERM, SIGUSR1 and Ctrl-C finish the current step, save a checkpoint and exit with code 75 (130 for Ctrl-C).
    - If a data worker dies or exceeds the data loader's ``timeout``, the run saves a checkpoint and ends with an error
      that names the file.

    Example:
        >>> from pvvae_plugin.config import read_config
        >>> from pvvae_plugin.registry import LOOPS
        >>> cfg = read_config('pvvae_demo', {'train_cfg.max_iters': 100, 'train_cfg.val_interval': 50})
        >>> cfg.train_cfg
        {'type': 'ClipTrainLoop', 'max_iters': 100, 'val_interval': 50}
        >>> LOOPS.get(cfg.train_cfg.type).__name__  # the class that the runner builds
        'ClipTrainLoop'
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any) -> None:
        if isinstance(dataloader, dict):
            diff_rank_seed = runner._randomness_cfg.get('diff_rank_seed', False)
            dataloader = runner.build_dataloader(dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed)
        # MMEngine's loop would start reading here, before the checkpoint is loaded and the setup is checked.
        super().__init__(runner, _Unopened(dataloader.dataset), *args, **kwargs)
        self.dataloader = prepare_workers(dataloader)

    def run(self) -> nn.Module:
        try:
            return self._run()
        finally:
            kill_workers_at_exit()

    def _run(self) -> nn.Module:
        runner = self.runner
        self._check_alike()
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        if self._iter >= self._max_iters:
            runner.logger.warning(
                f'nothing to train: the checkpoint is at iteration {self._iter} and train_cfg.max_iters is '
                f'{self._max_iters}. Increase max_iters to resume, at the final learning rate of the schedule'
            )
        else:
            if self._iter > 0:
                self._skip_past_samples()
            self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader)
        leave_worker_failures_to_the_loader()
        with StopRequest() as request:
            if (hook := self._checkpoint_hook()) is not None:
                hook.is_stop_asked = lambda: request.asked
            if self._iter > 0:
                self._validate_where_due(request)
            while self._iter < self._max_iters and not self.stop_training:
                self._train_and_validate(request)
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def _check_alike(self) -> None:
        """Check that all processes start from the same state. If not, training would deadlock or diverge silently.

        Raises:
            ValueError: If the states differ.
        """
        seen = self.runner.message_hub.runtime_info.get(SAMPLES_SEEN)
        states = all_gather_object((self._iter, seen, self.runner._load_from if self._iter else None))
        if len(set(states)) > 1:
            described = ', '.join(f'process {rank}: iteration {s[0]} ({s[2]})' for rank, s in enumerate(states))
            raise ValueError(
                f'processes start from different states: {described}. All processes must share one work directory'
            )

    def _train_and_validate(self, request: StopRequest) -> None:
        runner, hub = self.runner, self.runner.message_hub
        # 1. Read a batch, or catch the failure of the data loader.
        batch, failure = self._next_batch()
        # 2. Agree with the other processes whether to stop. Checkpoints do not hold accumulated gradients, so a stop
        #    waits for the next update. A failure cannot wait.
        agreed = request.agree(failed=failure is not None)
        if agreed == FAILED or (agreed == STOP and not self._is_accumulating()):
            self._leave(request, agreed, failure)
        # 3. Make the random draws of this step independent of earlier ones.
        runner.model.train()
        seed_step(runner.seed, self._iter, get_rank())
        # 4. Count the samples first, because a hook may save a checkpoint at the end of the step.
        hub.update_info(SAMPLES_SEEN, hub.runtime_info.get(SAMPLES_SEEN, 0) + batch_length(batch) * get_world_size())
        # 5. Train; hooks then log, average the weights, save and draw.
        self.run_iter(batch)
        # 6. Validate at the end of an interval.
        self._validate_where_due(request)

    def run_iter(self, data_batch: Any) -> None:
        """Run one training step. Hooks receive its logged values as Python numbers."""
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        outputs = to_numbers(runner.model.train_step(data_batch, optim_wrapper=runner.optim_wrapper))
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _next_batch(self) -> tuple[Any, Exception | None]:
        """Return the next batch, or the exception raised while reading it."""
        try:
            return next(self.dataloader_iterator), None
        except Exception as error:
            return None, error

    def _validate_where_due(self, request: StopRequest) -> None:
        self._decide_current_val_interval()
        hub, last = self.runner.message_hub, self._iter == self._max_iters
        due = self._iter >= self.val_begin and (self._iter % self.val_interval == 0 or last)
        # The checkpoint of an iteration is written before its validation: a run resumed from it validates first.
        if self.runner.val_loop is not None and due and hub.runtime_info.get(VALIDATED) != self._iter:
            self._validate(request)
            hub.update_info(VALIDATED, self._iter)

    def _validate(self, request: StopRequest) -> None:
        """Validate until done or asked to stop. On a stop, the state after the last step is saved."""
        val_loop = self.runner.val_loop
        # Processes agree before each batch, which requires the same number of batches everywhere.
        steps = len(val_loop.dataloader)
        run_iter = val_loop.run_iter

        def run_unless_stopped(index: int, batch: Any) -> None:
            agreed = request.agree()
            if agreed == FAILED or (agreed == STOP and not self._is_accumulating()):
                raise _Interrupted(agreed)
            run_iter(index, batch)

        prepare_workers(val_loop.dataloader)
        is_common = request.is_common(steps)
        if is_common:
            val_loop.run_iter = run_unless_stopped
        try:
            val_loop.run()
        except _Interrupted as interruption:
            self._end_validation()
            self._leave(request, interruption.agreed, None)
        except Exception as error:
            # Other processes take part in agree() only before a batch, so only worker failures can be shared.
            if get_world_size() > 1 and not (is_common and is_of_workers(error)):
                raise
            self._end_validation()
            self._leave(request, request.agree(failed=True), error)
        finally:
            val_loop.run_iter = run_iter

    def _end_validation(self) -> None:
        for hook in self.runner.hooks:
            if isinstance(hook, TrainedWeightsEMAHook):
                hook.end_swap(self.runner)

    def _is_accumulating(self) -> bool:
        """Return whether gradients are being accumulated for a later update."""
        counts = [wrapper._accumulative_counts for wrapper in optim_wrappers(self.runner).values()]
        return self._iter < self._max_iters and any(self._iter % count for count in counts)

    def _leave(self, request: StopRequest, agreed: int, failure: Exception | None) -> None:
        """Save a checkpoint and end the run in all processes."""
        runner = self.runner
        saved = self._save()
        message = '' if failure is None else describe_stuck(failure, f'{saved} Use --resume to continue from there. ')
        kill_workers()
        runner.visualizer.close()
        if agreed != FAILED:
            why = '' if request.asked else 'Another process received a stop request. '
            runner.logger.warning(f'{why}{saved} Rerun with --resume to continue. Exit code {request.exit_code}')
            raise SystemExit(request.exit_code)
        if failure is None:
            raise DataWorkerError(f'the data loader of another process failed; see its error message. {saved}')
        if not is_of_workers(failure):
            runner.logger.error(f'after iteration {self._iter}: {type(failure).__name__}. {saved}')
            raise failure
        raise DataWorkerError(message) from failure

    def _checkpoint_hook(self) -> AtomicCheckpointHook | None:
        return next((hook for hook in self.runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)

    def _save(self) -> str:
        """Write a checkpoint and return a sentence with its path."""
        runner = self.runner
        hook = self._checkpoint_hook()
        if hook is None:
            return 'No checkpoint was saved: default_hooks.checkpoint is not an AtomicCheckpointHook.'
        if self._iter == 0:
            return 'No checkpoint was saved: no training step has run yet.'
        try:
            hook.save(runner, self._iter, final=True, keep_older=self._is_accumulating())
        except OSError as error:
            return f'No newer checkpoint was saved: {error}.'
        lost = ' (without the gradients accumulated since the last update)' if self._is_accumulating() else ''
        return f'The state after {self._iter} iterations{lost} is in {hook.last_ckpt}.'

    def _skip_past_samples(self) -> None:
        loader = self.dataloader
        # Checkpoints of earlier releases do not record the number of samples.
        hub = self.runner.message_hub
        seen = hub.runtime_info.get(SAMPLES_SEEN)
        if hasattr(loader.batch_sampler, 'advance'):
            seen = loader.batch_sampler.advance(self._iter, seen)
        elif hasattr(loader.sampler, 'advance'):
            seen = self._iter * loader.batch_size * get_world_size() if seen is None else seen
            loader.sampler.advance(seen)
        else:
            raise TypeError(
                f'{type(loader.sampler).__name__} cannot resume mid-epoch: it has no advance(num_samples). '
                "Use InfiniteClipSampler, or MMEngine's IterBasedTrainLoop, which rereads all past batches"
            )
        hub.update_info(SAMPLES_SEEN, seen)


class _Unopened:
    """Placeholder for a data loader that must not be read yet."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator:
        return iter(())


class _Interrupted(Exception):
    """Signal that validation was interrupted."""

    def __init__(self, agreed: int) -> None:
        super().__init__(agreed)
        self.agreed = agreed


def to_numbers(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Copy all logged values to the host at once, to synchronize with the device only once per step."""
    tensors = {name: value for name, value in outputs.items() if isinstance(value, Tensor) and value.numel() == 1}
    numbers = {}
    for device in {value.device for value in tensors.values()}:  # a custom loss may log values from the CPU
        there = {name: value for name, value in tensors.items() if value.device == device}
        values = torch.stack([value.detach().reshape(()) for value in there.values()]).tolist()
        numbers.update(zip(there, values, strict=True))
    return {**outputs, **numbers}


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed all global random generators for a given step and rank."""
    key = derive_key(seed, 'step', iteration, rank)
    random.seed(key)
    np.random.seed(key % 2**32)
    torch.manual_seed(key)


def batch_length(batch: Any) -> int:
    """Return the number of clips in a batch, which is a dict of lists or a list."""
    return len(next(iter(batch.values())) if isinstance(batch, dict) else batch)

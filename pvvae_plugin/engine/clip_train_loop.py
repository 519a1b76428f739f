"""Training by iterations that resumes where it stood, and stops without losing what it has."""

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

from pvvae_plugin.functional.keyed_random import derive_key
from pvvae_plugin.registry import LOOPS

from .data_workers import (
    DataWorkerError,
    describe_stuck,
    is_of_workers,
    kill_workers,
    kill_workers_at_exit,
    leave_worker_failures_to_the_loader,
    prepare_workers,
)
from .hooks.checkpoint_hook import AtomicCheckpointHook
from .hooks.ema_hook import TrainedWeightsEMAHook
from .optim import optim_wrappers
from .stop_request import FAILED, STOP, StopRequest

# In the message hub, and so in checkpoints.
SAMPLES_SEEN = 'samples_seen'  # by all processes together
VALIDATED = 'last_validation'  # not val...: MMEngine would log it with the metrics


@LOOPS.register_module()
class ClipTrainLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that can be stopped at any iteration and resumes with the same results.

    - After a resume the sampler is told how many samples were consumed, by all processes together; nothing is read
      again (MMEngine's loop decodes every batch of the past), and neither another batch size nor another number of
      processes shifts the data. Needs a sampler with ``advance(num_samples)``, such as ``InfiniteClipSampler``, or a
      batch sampler with ``advance(num_batches, num_samples)``.
    - Before each step every global generator is seeded by the run's seed, the iteration and the process: what a module
      draws in a step does not depend on what was drawn before.
    - SIGTERM, SIGUSR1 and Ctrl-C let the step end, save the state and leave, with exit code 75 (130 for Ctrl-C).
    - A data worker that dies, or takes longer than the data loader's ``timeout``, ends the run with the state saved
      and the file named.

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
        # MMEngine's loop would start to read here, before a checkpoint has said where, and before anything is checked.
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
                f'nothing to train: the checkpoint has {self._iter} iterations behind it, train_cfg.max_iters is '
                f'{self._max_iters}. A larger one goes on, at the rate at which the schedule ended'
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
        """Processes that go on from different states would wait for one another for ever, or train on.

        Raises:
            ValueError: If they do.
        """
        seen = self.runner.message_hub.runtime_info.get(SAMPLES_SEEN)
        states = all_gather_object((self._iter, seen, self.runner._load_from if self._iter else None))
        if len(set(states)) > 1:
            described = ', '.join(f'process {rank}: iteration {s[0]} ({s[2]})' for rank, s in enumerate(states))
            raise ValueError(
                f'processes start from different states: {described}. The work directory must be one folder for all'
            )

    def _train_and_validate(self, request: StopRequest) -> None:
        runner, hub = self.runner, self.runner.message_hub
        # 1. Read a batch, or find out that no worker can.
        batch, failure = self._next_batch()
        # 2. Agree with the other processes whether to stop. A checkpoint cannot hold gradients that are being
        #    accumulated: a stop waits for the update, a failure cannot.
        agreed = request.agree(failed=failure is not None)
        if agreed == FAILED or (agreed == STOP and not self._is_accumulating()):
            self._leave(request, agreed, failure)
        # 3. Make the step's random draws independent of all earlier ones.
        runner.model.train()
        seed_step(runner.seed, self._iter, get_rank())
        # 4. Count the samples first, because a hook may save a checkpoint at the end of the step.
        hub.update_info(SAMPLES_SEEN, hub.runtime_info.get(SAMPLES_SEEN, 0) + batch_length(batch) * get_world_size())
        # 5. Train; hooks then log, average the weights, save and draw.
        self.run_iter(batch)
        # 6. Validate at the end of an interval.
        self._validate_where_due(request)

    def run_iter(self, data_batch: Any) -> None:
        """Make one step. Hooks get its logged values as numbers."""
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        outputs = to_numbers(runner.model.train_step(data_batch, optim_wrapper=runner.optim_wrapper))
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _next_batch(self) -> tuple[Any, Exception | None]:
        """A batch, or what came in its place."""
        try:
            return next(self.dataloader_iterator), None
        except Exception as error:
            return None, error

    def _validate_where_due(self, request: StopRequest) -> None:
        self._decide_current_val_interval()
        hub, last = self.runner.message_hub, self._iter == self._max_iters
        due = self._iter >= self.val_begin and (self._iter % self.val_interval == 0 or last)
        # Checkpoints are written before: a run resumed from one validates first.
        if self.runner.val_loop is not None and due and hub.runtime_info.get(VALIDATED) != self._iter:
            self._validate(request)
            hub.update_info(VALIDATED, self._iter)

    def _validate(self, request: StopRequest) -> None:
        """Validate, unless a stop is asked for meanwhile: the state is that of the last step, and can be saved."""
        val_loop = self.runner.val_loop
        # Processes ask one another before each batch, if all have as many.
        steps = len(val_loop.dataloader)
        run_iter = val_loop.run_iter

        def run_unless_stopped(index: int, batch: Any) -> None:
            agreed = request.agree()
            if agreed == FAILED or (agreed == STOP and not self._is_accumulating()):
                raise _Interrupted(agreed)
            run_iter(index, batch)

        prepare_workers(val_loop.dataloader)
        if request.is_common(steps):
            val_loop.run_iter = run_unless_stopped
        try:
            val_loop.run()
        except _Interrupted as interruption:
            self._end_validation()
            self._leave(request, interruption.agreed, None)
        except Exception as error:
            # Other processes may be anywhere: only where a worker failed do they ask before the next batch.
            if get_world_size() > 1 and not is_of_workers(error):
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
        """Whether gradients are kept for a later update."""
        counts = [wrapper._accumulative_counts for wrapper in optim_wrappers(self.runner).values()]
        return self._iter < self._max_iters and any(self._iter % count for count in counts)

    def _leave(self, request: StopRequest, agreed: int, failure: Exception | None) -> None:
        """Save the state and end the run, in all processes."""
        runner = self.runner
        saved = self._save()
        message = '' if failure is None else describe_stuck(failure, f'{saved} --resume goes on from there. ')
        kill_workers()
        runner.visualizer.close()
        if agreed != FAILED:
            why = '' if request.asked else 'Another process was asked to stop. '
            runner.logger.warning(f'{why}{saved} The same command with --resume goes on. Exit code {request.exit_code}')
            raise SystemExit(request.exit_code)
        if failure is None:
            raise DataWorkerError(f'another process has no data to go on with, its message says why. {saved}')
        if not is_of_workers(failure):
            runner.logger.error(f'after iteration {self._iter}: {type(failure).__name__}. {saved}')
            raise failure
        raise DataWorkerError(message) from failure

    def _checkpoint_hook(self) -> AtomicCheckpointHook | None:
        return next((hook for hook in self.runner.hooks if isinstance(hook, AtomicCheckpointHook)), None)

    def _save(self) -> str:
        """Write a checkpoint, and say where it is."""
        runner = self.runner
        hook = self._checkpoint_hook()
        if hook is None:
            return 'Nothing was saved: default_hooks.checkpoint is no AtomicCheckpointHook.'
        if self._iter == 0:
            return 'Nothing was saved: no step has been made.'
        try:
            hook.save(runner, self._iter, final=True, keep_older=self._is_accumulating())
        except OSError as error:
            return f'Nothing newer was saved: {error}.'
        lost = ', but for gradients accumulated since the last update,' if self._is_accumulating() else ''
        return f'The state after {self._iter} iterations{lost} is in {hook.last_ckpt}.'

    def _skip_past_samples(self) -> None:
        loader = self.dataloader
        # Checkpoints of earlier releases do not know how many samples they have seen.
        hub = self.runner.message_hub
        seen = hub.runtime_info.get(SAMPLES_SEEN)
        if hasattr(loader.batch_sampler, 'advance'):
            seen = loader.batch_sampler.advance(self._iter, seen)
        elif hasattr(loader.sampler, 'advance'):
            seen = self._iter * loader.batch_size * get_world_size() if seen is None else seen
            loader.sampler.advance(seen)
        else:
            raise TypeError(
                f'{type(loader.sampler).__name__} cannot resume in the middle: it has no advance(num_samples). '
                "Use InfiniteClipSampler, or MMEngine's IterBasedTrainLoop, which reads all past data again"
            )
        hub.update_info(SAMPLES_SEEN, seen)


class _Unopened:
    """Stands for a data loader of which nothing is to be read yet."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator:
        return iter(())


class _Interrupted(Exception):
    """Validation is broken off."""

    def __init__(self, agreed: int) -> None:
        super().__init__(agreed)
        self.agreed = agreed


def to_numbers(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Copy all logged values to the host together: one wait for the device per step, not one per value and hook."""
    tensors = {name: value for name, value in outputs.items() if isinstance(value, Tensor) and value.numel() == 1}
    numbers = torch.stack([value.detach().reshape(()) for value in tensors.values()]).tolist() if tensors else []
    return {**outputs, **dict(zip(tensors, numbers, strict=True))}


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Seed every global generator for one step of one process."""
    key = derive_key(seed, 'step', iteration, rank)
    random.seed(key)
    np.random.seed(key % 2**32)
    torch.manual_seed(key)


def batch_length(batch: Any) -> int:
    """Clips of a batch, a dict of lists or a list."""
    return len(next(iter(batch.values())) if isinstance(batch, dict) else batch)

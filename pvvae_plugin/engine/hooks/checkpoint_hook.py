"""Checkpoint hook that writes files atomically."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from mmengine import dist
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from pvvae_plugin.files import lock_folder, publish, write_atomically
from pvvae_plugin.functional.sharded import local
from pvvae_plugin.registry import HOOKS

from ..optim import advice_after_divergence, left_out_steps, optim_wrappers
from .skipped_clips_hook import SkippedClipsHook

TEMPORARY = '.writing'
RETRIES, SECONDS_BETWEEN = 120, 30  # for the last checkpoint of a run: one hour to free disk space


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, made safe against kills, full disks and second runs.

    - A checkpoint is written to a temporary file, synced to disk and renamed. Older checkpoints are deleted afterwards,
      so a complete checkpoint always exists.
    - If a write fails, e.g. because the disk is full, the hook logs the error and training continues. The write is
      retried after 1/20 of ``interval``, but at least 10 iterations. The last write of a run is retried for one hour,
      unless the run is asked to stop.
    - Non-finite weights are never written.
    - Only one run at a time can use a work directory.

    Checkpoints are written between updates only. With gradient accumulation, ``interval`` must be a multiple of
    ``accumulative_counts``, or the accumulated gradients would be lost.

    Args:
        **kwargs: Passed to ``mmengine.hooks.CheckpointHook``: ``interval`` (in iterations), ``max_keep_ckpts``, ...

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='AtomicCheckpointHook', interval=1000, max_keep_ckpts=3))
        >>> hook.interval, hook.max_keep_ckpts, hook.by_epoch  # the entry checkpoint of default_hooks
        (1000, 3, False)
    """

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.setdefault('by_epoch', False):
            raise ValueError('AtomicCheckpointHook saves by iterations; by_epoch must be False')
        if kwargs.get('save_best') is not None:
            raise ValueError(
                'AtomicCheckpointHook does not support save_best; remove it, or use '
                "type='mmengine.CheckpointHook', which may leave truncated files if the run is killed"
            )
        for name in ('out_dir', 'filename_tmpl'):
            if kwargs.get(name) is not None:
                raise ValueError(
                    f'{name}={kwargs[name]!r} is not supported: --resume and all tools expect checkpoints at '
                    'WORK_DIR/iter_N.pth; remove it, and set the folder with --work-dir'
                )
        super().__init__(**kwargs)
        self._lock: IO[str] | None = None
        self._retry_at: int | None = None
        self._gave_up = False
        self.saved_iter: int | None = None
        self.is_stop_asked: Callable[[], bool] = lambda: False  # set by ClipTrainLoop

    def before_train(self, runner: Runner) -> None:
        """Lock the work directory, and check that the run can save there.

        Raises:
            BlockingIOError: If another run uses the work directory.
            ValueError: If checkpoints would be written in the middle of gradient accumulation.
        """
        counts = [wrapper._accumulative_counts for wrapper in optim_wrappers(runner).values()]
        if any(self.interval > 0 and self.interval % count for count in counts):
            raise ValueError(
                f'default_hooks.checkpoint.interval={self.interval} is not a multiple of accumulative_counts='
                f'{max(counts)} of optim_wrapper: the accumulated gradients would be lost on resume'
            )
        self._lock = take_work_dir(runner.work_dir)
        self.out_dir = runner.work_dir
        runner.logger.info(f'checkpoints will be saved to {self.out_dir}')
        if dist.is_main_process():
            Path(self.out_dir).mkdir(parents=True, exist_ok=True)
            # Remove temporary files of a killed run. This run holds the lock of the folder.
            for pattern in (f'*{TEMPORARY}', '.last_checkpoint.*'):
                for path in Path(self.out_dir).glob(pattern):
                    path.unlink()
            self._delete_surplus(runner, runner.message_hub.runtime_info.get('keep_ckpt_ids', []))
            self._warn_of_little_space(runner)

    def after_run(self, runner: Runner) -> None:
        """Release the work directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _warn_of_little_space(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        # Weights, EMA and two moments of AdamW. One more checkpoint than are kept exists while it is written.
        needed = 16 * trained * (max(self.max_keep_ckpts, 1) + 1)
        free = shutil.disk_usage(self.out_dir).free
        if free < needed:
            runner.logger.warning(
                f'{self.out_dir} has {free / 2**30:.2f} GiB free, but checkpoints may need {needed / 2**30:.2f} GiB; '
                'free some space, lower default_hooks.checkpoint.max_keep_ckpts, or set another --work-dir'
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Save at the end of an interval, at the end of training, and when a failed write is due again."""
        step = runner.iter + 1
        last = self.save_last and self.is_last_train_iter(runner)
        if last or step == self._retry_at or self.every_n_train_iters(runner, self.interval, self.save_begin):
            if not last and left_out_steps(runner):
                # The run may have diverged: do not replace a good checkpoint. The weights have not changed since.
                self._retry_at = step + self._accumulation(runner)
                return
            runner.logger.info(f'Saving checkpoint at {step} iterations')
            self.save(runner, step, final=last)

    def save(self, runner: Runner, step: int, final: bool, keep_older: bool = False) -> None:
        """Write the checkpoint of iteration ``step``. All processes must call this.

        Args:
            runner: The runner.
            step: Number of iterations that the state has completed.
            final: Whether the run ends here. A failed write is then retried for one hour.
            keep_older: Whether to keep all older checkpoints.

        Raises:
            FloatingPointError: If weights are not finite.
            OSError: If ``final`` is set and the write still fails after one hour.
        """
        if self.saved_iter == step:
            return
        check_finite_weights(runner)
        for hook in runner.hooks:
            if isinstance(hook, SkippedClipsHook):
                hook.gather(runner)  # sum the counts of all ranks, because only rank 0 writes
        attempts = 0
        while (problem := self._try_to_save(runner, step, keep_older)) is not None:
            attempts += 1
            advice = f'{problem}; free some space; {self._what_is_there(runner)}'
            if not final:
                self._retry_at = step + self._updates_later(runner)
                runner.logger.error(
                    f'the checkpoint of iteration {step} could not be written: {advice}. Training '
                    f'continues; the next attempt is at iteration {self._retry_at}'
                )
                return
            runner.logger.error(
                f'the last checkpoint could not be written: {advice}. The write is retried '
                f'every {SECONDS_BETWEEN} s for up to one hour. After Ctrl-C or SIGTERM, it is tried once more'
            )
            if not self._waited_for_room(attempts):
                raise OSError(f'the last checkpoint (iteration {step}) could not be written: {advice}')
        self.saved_iter, self._retry_at = step, None

    def _waited_for_room(self, attempts: int) -> bool:
        """Wait for disk space. Return whether to try again, the same value in all processes."""
        again = [attempts < RETRIES and not self._gave_up]
        if again[0] and dist.is_main_process():
            deadline = time.monotonic() + SECONDS_BETWEEN
            while time.monotonic() < deadline and not self.is_stop_asked():
                time.sleep(min(1, SECONDS_BETWEEN))
        self._gave_up = self.is_stop_asked()
        dist.broadcast_object_list(again)
        return again[0]

    def _updates_later(self, runner: Runner) -> int:
        count = self._accumulation(runner)
        return max(1, max(10, self.interval // 20) // count) * count

    @staticmethod
    def _accumulation(runner: Runner) -> int:
        return math.lcm(*(wrapper._accumulative_counts for wrapper in optim_wrappers(runner).values()))

    def _what_is_there(self, runner: Runner) -> str:
        note = Path(runner.work_dir) / 'last_checkpoint'
        return (
            f'the last complete checkpoint is {note.read_text().strip()}'
            if note.is_file()
            else 'no checkpoint exists yet'
        )

    def _try_to_save(self, runner: Runner, step: int, keep_older: bool) -> str | None:
        """Try to write a checkpoint. Return the error, the same in all processes, or None on success."""
        name = self.filename_tmpl.format(step)
        hub, before = runner.message_hub, runner.message_hub.runtime_info.get('keep_ckpt_ids', [])
        kept = [*(number for number in before if number != step), step]
        # Checkpoints to delete stay on the list: if the run is killed first, the resumed run deletes them.
        hub.update_info('keep_ckpt_ids', kept)
        hub.update_info('last_ckpt', str(Path(self.out_dir) / name))
        problem: list[str | None] = [None]
        temporary = Path(self.out_dir) / (name + TEMPORARY)
        try:
            runner.save_checkpoint(
                self.out_dir,
                temporary.name,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta={'epoch': runner.epoch, 'iter': step},
                by_epoch=False,
            )
            if dist.is_main_process():
                publish(temporary, temporary.with_name(name))
                write_atomically(Path(runner.work_dir) / 'last_checkpoint', str(temporary.with_name(name)).encode())
        except OSError as error:
            problem = [error.strerror or str(error)]
            if dist.is_main_process():
                for path in (temporary, temporary.with_name(name)):
                    path.unlink(missing_ok=True)  # renamed already if only last_checkpoint could not be written
        dist.broadcast_object_list(problem)  # only the main process writes
        if problem[0] is not None:
            hub.update_info('keep_ckpt_ids', before)
            return problem[0]
        self.last_ckpt = str(temporary.with_name(name))
        if left_out_steps(runner):
            runner.logger.warning(
                f'{self.last_ckpt} was saved after steps that were skipped because of non-finite gradients; '
                'older checkpoints are not deleted'
            )
        elif not keep_older:
            self._delete_surplus(runner, kept)
        return None

    def _delete_surplus(self, runner: Runner, kept: list[int]) -> None:
        if self.max_keep_ckpts <= 0:
            return
        runner.message_hub.update_info('keep_ckpt_ids', kept[-self.max_keep_ckpts :])
        if dist.is_main_process():
            for number in kept[: -self.max_keep_ckpts]:
                (Path(self.out_dir) / self.filename_tmpl.format(number)).unlink(missing_ok=True)

    def save_apart(self, runner: Runner, name: str) -> str:
        """Write the current state to a file that ``--resume`` ignores, and return its path."""
        temporary = Path(self.out_dir) / (name + TEMPORARY)
        meta = {'epoch': runner.epoch, 'iter': runner.iter + 1}
        runner.save_checkpoint(self.out_dir, temporary.name, meta=meta, by_epoch=False)
        if dist.is_main_process():
            publish(temporary, temporary.with_name(name))
        return str(temporary.with_name(name))


def take_work_dir(work_dir: str | Path) -> IO[str] | None:
    """Lock a work directory for this run. Only rank 0 holds the lock.

    Returns:
        The lock, see :func:`lock_folder`; None in other processes.

    Raises:
        BlockingIOError: If another run uses the directory.
    """
    # Environment variables of torchrun, Slurm and Open MPI: the process group may not exist yet.
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    if int(next((rank for rank in ranks if rank is not None), 0)) or not dist.is_main_process():
        return None
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    try:
        return lock_folder(work_dir)
    except BlockingIOError as error:
        raise BlockingIOError(
            f'{error}: two runs would overwrite each other. Wait for it, stop it, or set another --work-dir'
        ) from error


def check_finite_weights(runner: Runner) -> None:
    """Check that the trained weights are finite in all processes.

    Raises:
        FloatingPointError: If they are not. The message names the first bad one.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    trained = {name: local(p.detach()) for name, p in model.named_parameters() if p.requires_grad}
    finite = torch.stack([torch.isfinite(p).all() for p in trained.values()])
    bad = torch.logical_not(finite).int()
    dist.all_reduce(bad, op='max')  # each rank may hold only a shard of the weights
    if bad.any():
        names = [name for name, is_bad in zip(trained, bad.tolist(), strict=True) if is_bad]
        raise FloatingPointError(
            f'iteration {runner.iter}: {len(names)} of {len(trained)} weights are not finite, e.g. {names[0]}. They '
            f'are not saved. {advice_after_divergence(runner)}'
        )

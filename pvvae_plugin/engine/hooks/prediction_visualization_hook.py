"""Visualization of reconstructions and predictions at each validation and test."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from PIL import Image
from torch.utils.data import DataLoader

from pvvae_plugin.files import without_space
from pvvae_plugin.registry import HOOKS
from pvvae_plugin.structures import VideoDataSample
from pvvae_plugin.temporal import groups_to_frames
from pvvae_plugin.visualization.strips import draw_panels, draw_strip, to_uint8
from pvvae_plugin.visualization.video_files import write_gif
from pvvae_plugin.visualization.vis_backends import add_to_tensorboard

from .ema_hook import averaged_weights


@HOOKS.register_module()
class PredictionVisualizationHook(Hook):
    """Draw some clips at each validation and test, spread over the dataset.

    The rows of a clip are the ground truth, the reconstruction, and one prediction per number of observed groups. The
    hook writes to ``<out_dir>/vis/iter_000500`` (``vis/test`` in a test): ``clip_00.png`` is a strip of frames with an
    orange border around predicted ones, and ``clip_00.gif`` shows the same clips side by side. ``vis/latest.png`` is
    the latest strip of the first clip. TensorBoard backends receive the strips; :class:`VideoTensorboardVisBackend`
    receives the animations as well. Only rank 0 draws, from its own shard of the data.

    Args:
        num_clips: Number of clips to draw each time.
        interval: Draw every ``interval`` iterations and after the last one, instead of at validations. For runs with
            few or no validations. Clips come from the validation set or, without one, from the training batch.
        fps: Frames per second of the animations.
        out_dir: Output folder; None uses the work directory of the run.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='PredictionVisualizationHook', interval=1000))  # an entry of custom_hooks
        >>> hook.num_clips, hook.interval, hook.fps
        (4, 1000, 8)
    """

    priority = 'LOW'  # after the EMA update of an iteration, before its checkpoint is written

    def __init__(
        self, num_clips: int = 4, interval: int | None = None, fps: float = 8, out_dir: str | None = None
    ) -> None:
        for name, value in (('num_clips', num_clips), ('interval', interval)):
            if value is not None and value < 1:
                raise ValueError(f'{name} must be at least 1, got {value}')
        self.num_clips = num_clips
        self.interval = interval
        self.fps = fps
        self.out_dir = out_dir
        self._num_drawn = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Draw at the end of an interval, from the averaged weights."""
        if self.interval is None or not is_main_process():
            return
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._num_drawn = 0
            step = runner.iter + 1
            self._draw(runner, self._predict(runner, data_batch), f'iter_{step:06d}', step)

    def _predict(self, runner: Runner, data_batch: dict) -> Sequence[VideoDataSample]:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if runner.val_loop is not None:
            dataset = runner.val_dataloader.dataset
            num = min(self.num_clips, len(dataset))
            data_batch = pseudo_collate([dataset[i * len(dataset) // num] for i in range(num)])
        few = {name: values[: self.num_clips] for name, values in data_batch.items()}
        training = model.training
        model.eval()
        with averaged_weights(runner):
            samples = model(**model.data_preprocessor(few, False), mode='predict')
        model.train(training)
        return samples

    def before_val_epoch(self, runner: Runner) -> None:
        """Reset the clip counter."""
        self._num_drawn = 0

    def before_test_epoch(self, runner: Runner) -> None:
        """Reset the clip counter."""
        self._num_drawn = 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[VideoDataSample] | None = None
    ) -> None:
        """Draw the selected clips of a validation batch."""
        if self.interval is not None:
            return
        # `runner.val()` without training has no training loop, and `runner.iter` would build one
        step = 0 if runner._train_loop is None or isinstance(runner._train_loop, dict) else runner.iter
        self._draw(runner, self._chosen(batch_idx, runner.val_dataloader, outputs), f'iter_{step:06d}', step)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[VideoDataSample] | None = None
    ) -> None:
        """Draw the selected clips of a test batch."""
        self._draw(runner, self._chosen(batch_idx, runner.test_dataloader, outputs), 'test', 0)

    def _chosen(
        self, batch_idx: int, loader: DataLoader, outputs: Sequence[VideoDataSample] | None
    ) -> Sequence[VideoDataSample]:
        """Return the clips of this batch to draw. They are spread over the dataset, which may be sorted by class."""
        last = len(loader) - 1
        batches = [round(i * last / max(1, self.num_clips - 1)) for i in range(self.num_clips)]
        return (outputs or [])[: batches.count(batch_idx)]

    @master_only
    def _draw(self, runner: Runner, samples: Sequence[VideoDataSample], folder: str, step: int) -> None:
        root = Path(self.out_dir or runner.work_dir) / 'vis'
        for sample in samples:
            clips, captions, num_observed = _rows(sample)
            strip = draw_strip(clips, captions, num_observed)
            panels = draw_panels(clips, captions, num_observed)
            name = f'clip_{self._num_drawn:02d}'
            path = root / folder / f'{name}.png'
            with without_space('pictures'):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(strip).save(path)
                write_gif(path.with_suffix('.gif'), panels, self.fps)
                if self._num_drawn == 0:
                    shutil.copyfile(path, root / 'latest.png')
            add_to_tensorboard(runner.visualizer, name, strip, panels, step, self.fps)
            self._num_drawn += 1


def _rows(sample: VideoDataSample) -> tuple[list[np.ndarray], list[str], list[int | None]]:
    """Return the clips, captions and numbers of observed frames of the rows, from top to bottom."""
    clips = [to_uint8(sample.video), to_uint8(sample.reconstruction)]
    captions, num_observed = ['truth', 'reconstruction'], [None, None]
    for observed, prediction in sorted(sample.get('predictions', {}).items()):
        frames = groups_to_frames(observed, sample.temporal_ratio)
        clips.append(to_uint8(prediction))
        captions.append(f'from {frames} frame{"s" if frames > 1 else ""}')
        num_observed.append(frames)
    return clips, captions, num_observed

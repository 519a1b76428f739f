"""Visualization of generated samples during training."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from PIL import Image

from pvvae_plugin.files import without_space
from pvvae_plugin.functional.rectified_flow import check_sampler
from pvvae_plugin.functional.sharded import is_sharded
from pvvae_plugin.models.generator_checks import check_guidance
from pvvae_plugin.registry import HOOKS
from pvvae_plugin.renaming import renamed_arguments
from pvvae_plugin.visualization.strips import draw_panels, draw_strip, to_uint8
from pvvae_plugin.visualization.video_files import write_gif
from pvvae_plugin.visualization.vis_backends import add_to_tensorboard

from .ema_hook import averaged_weights

FPS = 8


@HOOKS.register_module()
class GenerationVisualizationHook(Hook):
    """Draw samples of a :class:`LatentVideoGenerator` at each validation, always from the same noise.

    Classes are assigned round-robin. Length and size are those of the clips that the run reads. The hook writes a strip
    of frames, ``samples.png``, and an animation, ``samples.gif``, to ``<out_dir>/vis/iter_000500`` (``vis/test`` in a
    test). ``vis/latest.png`` is the latest strip. TensorBoard receives both, as in
    :class:`PredictionVisualizationHook`. Only rank 0 draws and the others wait; with FSDP, all ranks compute the same
    samples.

    Samples use the averaged weights of :class:`TrainedWeightsEMAHook`, if there is one. Drawing does not change the
    training results, bit for bit.

    Args:
        num_clips: Number of samples to draw each time.
        interval: Draw every ``interval`` iterations and after the last one, instead of at validations. For runs with
            few or no validations.
        num_inference_steps: Number of Euler steps (network calls) per sample.
        guidance_scale: Classifier-free guidance scale; 1 disables guidance.
        out_dir: Output folder; None uses the work directory of the run.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> config = dict(type='GenerationVisualizationHook', num_clips=8, interval=1000, num_inference_steps=50)
        >>> hook = HOOKS.build(config)  # an entry of custom_hooks
        >>> hook.num_clips, hook.interval, hook.guidance_scale
        (8, 1000, 1.0)
    """

    priority = 'LOW'  # after the EMA update of an iteration, before its checkpoint is written

    @renamed_arguments(steps='num_inference_steps', guidance='guidance_scale')
    def __init__(
        self,
        num_clips: int = 8,
        interval: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        out_dir: str | None = None,
    ) -> None:
        numbers = {'num_clips': num_clips, 'interval': interval, 'num_inference_steps': num_inference_steps}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f'{name} must be at least 1, got {value}')
        self.num_clips = num_clips
        self.interval = interval
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self.out_dir = out_dir

    def before_train(self, runner: Runner) -> None:
        if self.interval is None and runner.val_loop is None:
            raise ValueError(
                'GenerationVisualizationHook draws at validations, but this run has none; set its interval (in '
                'iterations)'
            )
        self._check_sampling(runner)

    def before_test(self, runner: Runner) -> None:
        self._check_sampling(runner)

    def _check_sampling(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        try:
            check_sampler(self.num_inference_steps, self.guidance_scale)
            check_guidance(self.guidance_scale, model.head.null_label, model.class_dropout)
        except ValueError as error:
            raise ValueError(f'GenerationVisualizationHook: {error}') from error

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Draw at the end of an interval, from the averaged weights."""
        if self.interval is None:
            return
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            with averaged_weights(runner):
                step = runner.iter + 1
                self._draw(runner, data_batch, runner.train_dataloader.dataset, f'iter_{step:06d}', step)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Draw once per validation, which runs on the averaged weights."""
        if batch_idx == 0 and self.interval is None:
            # `runner.val()` without training has no training loop, and `runner.iter` would build one
            step = 0 if runner._train_loop is None or isinstance(runner._train_loop, dict) else runner.iter
            self._draw(runner, data_batch, runner.val_dataloader.dataset, f'iter_{step:06d}', step)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Draw once per test."""
        if batch_idx == 0:
            self._draw(runner, data_batch, runner.test_dataloader.dataset, 'test', 0)

    def _draw(self, runner: Runner, data_batch: dict, dataset: Any, folder: str, step: int) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not is_main_process() and not is_sharded(model.head):
            return
        frames, size = model.clip_geometry(data_batch['inputs'][0])
        num_classes = model.head.null_label
        labels = None if num_classes is None else [i % num_classes for i in range(self.num_clips)]
        training = model.training
        videos = model.generate(
            self.num_clips,
            frames,
            size,
            labels=labels,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
        )
        clips = [to_uint8(video) for _, video in videos]
        model.train(training)
        if not is_main_process():
            return

        names = getattr(dataset, 'metainfo', {}).get('classes')
        if labels is None:
            captions = [f'sample {i}' for i in range(len(clips))]
        else:
            known = names and len(names) == num_classes
            captions = [str(names[label]) if known else f'class {label}' for label in labels]
        strip = draw_strip(clips, captions)
        panels = draw_panels(clips, captions, columns=math.ceil(math.sqrt(len(clips))))
        root = Path(self.out_dir or runner.work_dir) / 'vis'
        path = root / folder / 'samples.png'
        with without_space('pictures'):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(strip).save(path)
            write_gif(path.with_suffix('.gif'), panels, FPS)
            shutil.copyfile(path, root / 'latest.png')
        add_to_tensorboard(runner.visualizer, 'samples', strip, panels, step, FPS)

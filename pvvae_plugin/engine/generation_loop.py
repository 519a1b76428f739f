"""Test loop for generators: one pass of generation feeds all metrics."""

from __future__ import annotations

import sys
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, TestLoop
from torch.utils.data import DataLoader

from pvvae_plugin.evaluation.set_metric import check_distinct
from pvvae_plugin.functional.sharded import is_sharded
from pvvae_plugin.progress import ProgressBar
from pvvae_plugin.registry import LOOPS
from pvvae_plugin.structures import VideoDataSample


@LOOPS.register_module()
class GenerationLoop(TestLoop):
    """Generate videos with a :class:`LatentVideoGenerator` and pass them to the evaluator as ``generated``.

    The first clip of the data loader sets the length and size; no other clip is read. Classes are assigned round-robin.
    Video ``i`` depends only on the seed and ``i``. Batches are distributed round-robin across processes, so the number
    of processes does not change the results. Inputs of metrics, such as features of real clips, are prepared before the
    generation, so bad data fails early.

    Args:
        runner: The runner.
        dataloader: Clips or cached latents of the length and size to generate.
        evaluator: Metrics of generated videos, such as :class:`FVD`.
        num_samples: Number of videos to generate.
        batch_size: Batch size per process.
        seed: Seed of the noise.
        sampling: Further arguments of :meth:`LatentVideoGenerator.generate`: ``num_inference_steps`` (default 100),
            ``guidance_scale``, ``guidance_interval``, ``shift``, ``solver``.

    Raises:
        ValueError: If ``num_samples`` or ``batch_size`` is not positive.

    Example:
        >>> from pvvae_plugin.config import read_config
        >>> from pvvae_plugin.registry import LOOPS
        >>> cfg = read_config('dit_demo', {'test_cfg.num_samples': 64, 'test_cfg.sampling.num_inference_steps': 25})
        >>> cfg.test_cfg.type, cfg.test_cfg.num_samples, cfg.test_cfg.sampling
        ('GenerationLoop', 64, {'num_inference_steps': 25, 'guidance_scale': 2.0})
        >>> LOOPS.get(cfg.test_cfg.type).__name__  # the class that the runner builds
        'GenerationLoop'
    """

    sample_fields = ('generated',)  # what metrics can read

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        num_samples: int = 2048,
        batch_size: int = 8,
        seed: int = 0,
        sampling: dict[str, Any] | None = None,
    ) -> None:
        for name, value in (('num_samples', num_samples), ('batch_size', batch_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'test_cfg.{name} must be a positive integer, got {value!r}')
        super().__init__(runner, dataloader, evaluator)
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.sampling = dict(sampling or {})

    def run(self) -> dict[str, float]:
        """Generate the videos and evaluate them."""
        runner = self.runner
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not hasattr(model, 'generate'):
            raise TypeError(f'GenerationLoop needs a generator, {type(model).__name__} cannot generate: use TestLoop')
        if is_sharded(model):  # ranks may generate different numbers of videos and would deadlock
            raise ValueError('GenerationLoop does not support a sharded head (FSDP); run the test with tools/test.py')
        runner.call_hook('before_test')
        runner.call_hook('before_test_epoch')
        model.eval()

        first = self.dataloader.dataset[0]
        num_frames, size = model.clip_geometry(first['inputs'])
        rank, world_size = get_dist_info()
        batches = [
            range(start, min(start + self.batch_size, self.num_samples))
            for start in range(0, self.num_samples, self.batch_size)
        ]
        mine = [index for batch in batches[rank::world_size] for index in batch]
        classes = model.head.null_label
        labels = None if classes is None else [i % classes for i in range(self.num_samples)]
        videos = model.generate(
            self.num_samples,
            num_frames,
            size,
            labels=labels,
            seed=self.seed,
            batch_size=self.batch_size,
            indices=mine,
            **self.sampling,
        )  # raises on invalid arguments
        check_distinct(self.evaluator.metrics)
        for metric in self.evaluator.metrics:
            if hasattr(metric, 'prepare'):
                metric.prepare(num_frames, self.num_samples)

        progress = ProgressBar(len(mine), file=sys.stderr) if rank == 0 else None
        batch: list[VideoDataSample] = []
        for count, (index, video) in enumerate(videos, start=1):
            sample = VideoDataSample(metainfo={'index': index, 'label': None if labels is None else labels[index]})
            sample.generated = video
            batch.append(sample)
            if len(batch) == self.batch_size or count == len(mine):
                with torch.no_grad():
                    self.evaluator.process(data_samples=batch)
                batch = []
            if progress:
                progress.update()
        if progress:
            print(file=sys.stderr)
        # Call the iteration hooks once, for the visualization hook.
        runner.call_hook('after_test_iter', batch_idx=0, data_batch={'inputs': [first['inputs']]}, outputs=None)
        metrics = self.evaluator.evaluate(self.num_samples)
        runner.call_hook('after_test_epoch', metrics=metrics)
        runner.call_hook('after_test')
        return metrics

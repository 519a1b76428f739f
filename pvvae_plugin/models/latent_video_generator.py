"""LatentVideoGenerator: training and sampling of a generator on the latents of a frozen VAE (paper, generation)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from pvvae_plugin.functional import rectified_flow as flow
from pvvae_plugin.functional.conversion import at_least_float32
from pvvae_plugin.functional.keyed_random import randn_like, torch_rng, torch_rngs
from pvvae_plugin.registry import MODELS
from pvvae_plugin.renaming import renamed_arguments
from pvvae_plugin.structures import VideoDataSample
from pvvae_plugin.temporal import groups_to_frames

from .checkpoints import load_backbone, resolve_checkpoint, training_progress
from .generator_checks import (
    check_finite,
    check_first_frames,
    check_guidance,
    check_labels,
    latent_shape,
    steps_of_calls,
    untrained_shape,
    warn_once,
)
from .vae import DiagonalGaussian

NUM_TIMES = 4  # times per clip in the validation loss


@MODELS.register_module()
class LatentVideoGenerator(BaseModel):
    """Latent video generator: frozen backbone + head + rectified flow.

    The head learns the velocity from noise to the backbone's latents, normalized per channel with the backbone's
    latent statistics. Clips are encoded on the fly, or their moments come from a :class:`LatentDataset`.

    Args:
        backbone: Config of a VAE with the interface of :class:`PredictiveVAE`. It stays frozen.
        backbone_checkpoint: Checkpoint or work directory of the run that trained the backbone. None for a backbone
            that loads its own weights, such as :class:`DiffusersVAE`.
        head: Config of a network ``(latents, times, labels) -> velocity``, e.g. :class:`LatentDiT`.
        time_sampling: Distribution of training times, ``'uniform'`` or ``'logit-normal'``.
        class_dropout: Probability of hiding the class of a training clip; classifier-free guidance needs it.
        condition_prob: Probability that a training clip gets its first latent frames clean (1 to ``t - 1`` frames).
            Needed for video continuation and image-to-video; 0 disables it.
        data_preprocessor: Config of the preprocessor; :class:`VideoDataPreprocessor` if None.
        init_cfg: MMEngine initialization config.

    Attributes:
        optimized_modules (dict[str, nn.Module]): Optimizer name -> submodule that it trains.
        parallel (dict[str, Callable]): See :class:`VideoAutoencoder`.
        backbone_source (dict[str, Any] | None): ``path`` and ``sha256`` of the backbone's weights, and ``iter`` and
            ``max_iters`` of its run if known.
        trained_on (set[tuple[int, int, int]]): Shapes ``(T, H, W)`` of all training clips so far.

    Example:
        >>> from pvvae_plugin.registry import MODELS
        >>> vae = dict(type='PredictiveVAE', latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
        >>> MODELS.build(vae).save_pretrained('my_vae')
        >>> backbone = dict(type='PretrainedVAE', pretrained='my_vae')
        >>> head = dict(type='LatentDiT', latent_channels=4, num_classes=3, depth=2, hidden_size=16, num_heads=2)
        >>> model = MODELS.build(
        ...     dict(type='LatentVideoGenerator', backbone=backbone, backbone_checkpoint=None, head=head)
        ... )
        >>> [tuple(video.shape) for _, video in model.generate(2, 9, (32, 32), labels=[0, 2], num_inference_steps=2)]
        [(3, 9, 32, 32), (3, 9, 32, 32)]
    """

    sample_fields = ('flow_losses',)  # added by forward(mode='predict')

    @renamed_arguments(times='time_sampling')
    def __init__(
        self,
        backbone: dict,
        backbone_checkpoint: str | None,
        head: dict,
        time_sampling: str = 'uniform',
        class_dropout: float = 0.1,
        condition_prob: float = 0.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or {'type': 'pvvae_plugin.VideoDataPreprocessor'}, init_cfg)
        for name, value in (('class_dropout', class_dropout), ('condition_prob', condition_prob)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f'{name} must be in [0, 1], got {value}')
        if backbone_checkpoint is not None:
            # Fails before anything large is built.
            backbone_checkpoint = resolve_checkpoint(backbone_checkpoint, 'model.backbone_checkpoint')
        self.backbone = MODELS.build(backbone).requires_grad_(False).eval()
        self.backbone_source = getattr(self.backbone, 'source', None)
        if backbone_checkpoint is not None:
            sha256 = load_backbone(self.backbone, backbone_checkpoint)
            progress = training_progress(backbone_checkpoint)
            self.backbone_source = {'path': backbone_checkpoint, 'sha256': sha256, **progress}
        self.head = MODELS.build(head)
        if self.head.latent_channels != self.backbone.latent_channels:
            raise ValueError(
                f'the head expects {self.head.latent_channels} latent channels, but the backbone has '
                f'{self.backbone.latent_channels}: set model.head.latent_channels={self.backbone.latent_channels}'
            )
        self.time_sampling = time_sampling
        self.class_dropout = class_dropout
        self.condition_prob = condition_prob
        self.parallel: dict[str, Any] = {}
        self.trained_on: set[tuple[int, int, int]] = set()

    @property
    def optimized_modules(self) -> dict[str, nn.Module]:
        return {'head': self.head}

    def train(self, mode: bool = True) -> LatentVideoGenerator:
        """Set the training mode of the head. The frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def train_step(self, data: dict, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """Run one training step of the head."""
        optim = optim_wrapper['head'] if isinstance(optim_wrapper, OptimWrapperDict) else optim_wrapper
        with optim.optim_context(self.parallel.get('head', self.head)):
            data = self.data_preprocessor(data, training=True)
            self.trained_on.add(self.clip_shape(data['inputs'][0]))
            losses = self.loss(data['inputs'], data['data_samples'])
        total, log = self.parse_losses(losses)
        optim.update_params(total)
        return log

    def forward(
        self, inputs: Tensor, data_samples: list[VideoDataSample], mode: str = 'loss'
    ) -> dict[str, Tensor] | list[VideoDataSample]:
        """Return losses (``'loss'``), or fill in ``flow_losses`` of the samples (``'predict'``).

        [0, 1] is split into :data:`NUM_TIMES` equal parts, and ``flow_losses`` has one loss at a uniformly drawn time
        per part, independent of ``time_sampling``. Times and noise depend on the clip's ``draw_key`` only, so they are
        the same in every validation. The class is never hidden.

        Args:
            inputs: Clips ``(N, 3, T, H, W)`` in [-1, 1], or moments ``(N, 2 C, t, h, w)``.
            data_samples: One sample per clip.
            mode: ``'loss'`` or ``'predict'``.

        Example:
            >>> from pvvae_plugin.models import LatentVideoGenerator
            >>> from pvvae_plugin.structures import VideoDataSample
            >>> vae = dict(type='PredictiveVAE', latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> head = dict(type='LatentDiT', latent_channels=4, depth=2, hidden_size=16, num_heads=2)
            >>> model = LatentVideoGenerator(vae, backbone_checkpoint=None, head=head)
            >>> list(model(torch.zeros(1, 3, 9, 32, 32), [VideoDataSample()], mode='loss'))
            ['loss_flow']
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            with torch.no_grad():
                losses = self._losses_over_time(inputs, data_samples)  # (N, NUM_TIMES)
            for sample, of_clip in zip(data_samples, losses, strict=True):
                sample.flow_losses = of_clip
            return data_samples
        raise ValueError(f"mode must be 'loss' or 'predict', got {mode!r}")

    def loss(self, inputs: Tensor, data_samples: list[VideoDataSample]) -> dict[str, Tensor]:
        """Return the mean squared error of the velocity over all latents that are not conditioned."""
        return {'loss_flow': self._clip_losses(inputs, data_samples).mean()}

    def _clip_losses(self, inputs: Tensor, data_samples: list[VideoDataSample]) -> Tensor:
        """Return one loss per clip, ``(N,)``."""
        rngs = torch_rngs([sample.metainfo.get('draw_key') for sample in data_samples], 'flow', inputs.device)
        latents = self._latents(inputs, rngs)
        noise = randn_like(latents, rngs)
        times = flow.sample_times(len(inputs), self.time_sampling, rngs, inputs.device)
        labels = self._labels(data_samples, inputs.device, rngs)
        return self._losses_at(times, latents, noise, labels, rngs)

    def _losses_over_time(self, inputs: Tensor, data_samples: list[VideoDataSample]) -> Tensor:
        """Return losses per clip at one time per part of [0, 1], ``(N, NUM_TIMES)``."""
        rngs = torch_rngs([sample.metainfo.get('draw_key') for sample in data_samples], 'flow', inputs.device)
        latents = self._latents(inputs, rngs)
        labels = self._labels(data_samples, inputs.device, rngs)
        losses = []
        for part in range(NUM_TIMES):
            times = (part + flow.sample_times(len(inputs), 'uniform', rngs, inputs.device)) / NUM_TIMES
            losses.append(self._losses_at(times, latents, randn_like(latents, rngs), labels, rngs))
        return torch.stack(losses, dim=1)

    def _losses_at(self, times: Tensor, latents: Tensor, noise: Tensor, labels: Tensor | None, rngs: Any) -> Tensor:
        """Return the mean squared error of the velocity per clip, over latents that are not conditioned, ``(N,)``."""
        given = self._given_frames(latents, rngs)
        wanted = torch.arange(latents.shape[2], device=latents.device)[None] >= given[:, None]  # (N, t)
        # flow.frame_times() checks the values, which would synchronize with the device in every step.
        frame_times = torch.where(wanted, times[:, None], 1.0)  # (N, t)
        noisy = flow.interpolate(latents, noise, frame_times)
        head = self.parallel.get('head', self.head)
        velocity = at_least_float32(head(noisy, frame_times if self.condition_prob else times, labels))
        squared = (velocity - flow.velocity_target(latents, noise)).square().mean(dim=(1, 3, 4))  # (N, t)
        return (squared * wanted).sum(1) / wanted.sum(1)

    @torch.no_grad()
    def _latents(self, inputs: Tensor, rngs: Any) -> Tensor:
        """Return normalized latents ``(N, C, t, h, w)`` of clips ``(N, 3, T, H, W)`` or moments ``(N, 2 C, t, h, w)``.

        Autocast is off here. The head would learn the rounding error of bfloat16, and the latent statistics are
        measured without it.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            if inputs.shape[1] == 2 * self.backbone.latent_channels:
                posterior = DiagonalGaussian(*inputs.chunk(2, dim=1))
            else:
                posterior = self.backbone.encode(inputs)
            return at_least_float32(self.backbone.normalize_latents(posterior.sample(rngs)))

    def _labels(self, samples: list[VideoDataSample], device: torch.device, rngs: Any) -> Tensor | None:
        if self.head.null_label is None:
            return None
        labels = [sample.metainfo.get('label') for sample in samples]
        for sample, label in zip(samples, labels, strict=True):
            if label is None or not 0 <= label < self.head.null_label:
                raise ValueError(
                    f'{sample.metainfo.get("path")} has {"no label" if label is None else f"label {label}"}, but the '
                    f'head needs one in 0..{self.head.null_label - 1}: use other data, or set model.head.num_classes'
                )
        labels = torch.tensor(labels).to(device, non_blocking=True)  # a blocking copy would synchronize
        hidden = flow.sample_times(len(samples), 'uniform', rngs, device) < self.class_dropout
        return torch.where(hidden, self.head.null_label, labels) if self.training else labels

    def _given_frames(self, latents: Tensor, rngs: Any) -> Tensor:
        """Draw the number of clean first latent frames per clip, ``(N,)``."""
        n, _, t = latents.shape[:3]
        if not self.condition_prob or t == 1:
            return torch.zeros(n, dtype=torch.long, device=latents.device)
        chosen = flow.sample_times(n, 'uniform', rngs, latents.device) < self.condition_prob
        count = 1 + (flow.sample_times(n, 'uniform', rngs, latents.device) * (t - 1)).long()
        return torch.where(chosen, count, 0)

    def clip_geometry(self, inputs: Tensor) -> tuple[int, tuple[int, int]]:
        """Return frames and (height, width) of a clip ``(3, T, H, W)`` or of moments ``(2 C, t, h, w)``."""
        length, height, width = inputs.shape[1:]
        if inputs.shape[0] != 2 * self.backbone.latent_channels:
            return length, (height, width)
        ratio = self.backbone.spatial_ratio
        return groups_to_frames(length, self.backbone.temporal_ratio), (height * ratio, width * ratio)

    def clip_shape(self, inputs: Tensor) -> tuple[int, int, int]:
        """Return ``(T, H, W)`` of a clip ``(3, T, H, W)`` or of moments ``(2 C, t, h, w)``."""
        num_frames, size = self.clip_geometry(inputs)
        return num_frames, *size

    @renamed_arguments(guidance='guidance_scale', interval='guidance_interval')
    def generate(
        self,
        num: int,
        num_frames: int,
        size: tuple[int, int],
        labels: Sequence[int] | None = None,
        num_inference_steps: int = 100,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        shift: float = 1.0,
        solver: str = 'euler',
        seed: int = 0,
        batch_size: int = 8,
        first_frames: Tensor | None = None,
        indices: Sequence[int] | None = None,
        steps: int | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Generate videos. Each one depends on ``seed`` and its index only, not on the batch or the process.

        The noise is drawn on the CPU and is identical everywhere. The videos are bit-identical for the same batches,
        device and number of threads. In other cases they differ by rounding.

        Args:
            num: Number of videos.
            num_frames: Frames ``T`` per video, ``1 + k * p_t``.
            size: Height and width in pixels, divisible by ``p_s``. A length or size that the generator was not trained
                on causes a warning.
            labels: One class per video; None for an unconditional head.
            num_inference_steps: Solver steps. Euler calls the network once per step, Heun twice.
            guidance_scale: Classifier-free guidance scale; 1 disables guidance. Other scales need a class-conditional
                head trained with ``class_dropout``.
            guidance_interval: Times ``(low, high)`` between which guidance is applied.
            shift: Timestep shift, see :func:`time_grid`.
            solver: ``'euler'`` or ``'heun'``.
            seed: Seed of the noise.
            batch_size: Videos per batch.
            first_frames: Frames to continue, ``(n, 3, T', H, W)`` in [-1, 1], for a head trained with
                ``condition_prob``. If ``n`` is less than ``num``, they are cycled. One frame animates an image.
            indices: Indices of the videos to generate, in this order, e.g. the shard of a process; all if None.
            steps: Deprecated number of network calls; use ``num_inference_steps``.

        Returns:
            A lazy iterator over index and video ``(3, T, H, W)`` in [-1, 1].

        Raises:
            ValueError: If an argument is invalid. Raised at the call, not during iteration.
            FloatingPointError: If a video is not finite.

        Example:
            >>> from pvvae_plugin.models import LatentVideoGenerator
            >>> vae = dict(type='PredictiveVAE', latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> head = dict(type='LatentDiT', latent_channels=4, depth=2, hidden_size=16, num_heads=2)
            >>> model = LatentVideoGenerator(vae, backbone_checkpoint=None, head=head)
            >>> for index, video in model.generate(num=2, num_frames=9, size=(32, 32), num_inference_steps=2):
            ...     print(index, tuple(video.shape))
            0 (3, 9, 32, 32)
            1 (3, 9, 32, 32)
        """
        for name, value in (('num', num), ('batch_size', batch_size)):
            if value < 1:
                raise ValueError(f'{name} must be at least 1, got {value}')
        shape = latent_shape(self.backbone, num_frames, size)
        if steps is not None:
            num_inference_steps = steps_of_calls(steps, solver)
        flow.check_sampler(num_inference_steps, guidance_scale, guidance_interval, shift, solver)
        check_guidance(guidance_scale, self.head.null_label, self.class_dropout)
        labels = check_labels(labels, num, self.head.null_label)
        if first_frames is not None:
            check_first_frames(first_frames, self.backbone, self.condition_prob, num, num_frames, size)
        if difference := untrained_shape((num_frames, *size), self.trained_on, self.backbone):
            warn_once(f'asked for {difference}: the quality is unknown; use a length and size of the training')
        solve = functools.partial(flow.SOLVERS[solver].integrate, times=flow.time_grid(num_inference_steps, shift))
        indices = list(range(num) if indices is None else indices)
        if wrong := [index for index in indices if not 0 <= index < num]:
            raise ValueError(f'indices must be in 0..{num - 1} for num={num}, got {wrong[0]}')
        batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
        return self._make_videos(batches, shape, labels, guidance_scale, guidance_interval, solve, seed, first_frames)

    @torch.no_grad()
    def _make_videos(
        self,
        batches: list[list[int]],
        shape: tuple[int, int, int, int],
        labels: list[int] | None,
        guidance_scale: float,
        guidance_interval: tuple[float, float],
        solve: Callable[[flow.Velocity, Tensor], Tensor],
        seed: int,
        first_frames: Tensor | None,
    ) -> Iterator[tuple[int, Tensor]]:
        vae, device = self.backbone, next(self.head.parameters()).device
        self.eval()
        for chosen in batches:
            noise = torch.empty(len(chosen), *shape)  # (N, C, t, h, w)
            noise = randn_like(noise, [torch_rng(seed, 'generate', i) for i in chosen]).to(device)
            if labels is None:
                velocity = functools.partial(self.head, labels=None)
            else:
                classes = torch.tensor([labels[i] for i in chosen], device=device)
                velocity = flow.with_guidance(
                    self.head, classes, self.head.null_label, guidance_scale, guidance_interval
                )
            if first_frames is not None:
                clean = self._clean_latents(first_frames[[i % len(first_frames) for i in chosen]].to(device))
                velocity = flow.with_conditioned_frames(velocity, clean, clean.shape[2])
            latents = solve(velocity, noise)
            if first_frames is not None:
                latents = flow.condition_frames(latents, clean, clean.shape[2])
            videos = vae.decode(vae.denormalize_latents(latents)).float().clamp(-1, 1)
            check_finite(videos, chosen)
            yield from zip(chosen, videos, strict=True)

    def _clean_latents(self, video: Tensor) -> Tensor:
        """Encode the frames to continue, without autocast as in :meth:`_latents`."""
        with torch.autocast(video.device.type, enabled=False):
            return at_least_float32(self.backbone.normalize_latents(self.backbone.encode(video).mode()))

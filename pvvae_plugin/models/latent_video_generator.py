"""LatentVideoGenerator: how a generator is trained on the latents of a frozen VAE, and sampled (paper, generation)."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from pvvae_plugin.functional import rectified_flow as flow
from pvvae_plugin.functional.keyed_random import randn_like, torch_generator
from pvvae_plugin.registry import MODELS
from pvvae_plugin.structures import VideoDataSample
from pvvae_plugin.temporal import frames_to_groups

from .pretrained import load_backbone
from .vae import DiagonalGaussian

SOLVERS = {'euler': flow.euler, 'heun': flow.heun}


@MODELS.register_module()
class LatentVideoGenerator(BaseModel):
    """Algorithm of generation: frozen backbone + head + rectified flow.

    The head learns the velocity from noise to the backbone's latents, normalised for each channel by the backbone's
    statistics. Clips are encoded on the fly, or their moments come from a :class:`LatentDataset`.

    Args:
        backbone: Config of a VAE with the interface of :class:`PredictiveVAE`; never trained here.
        backbone_checkpoint: Checkpoint or work directory of the run that trained it. None leaves it as built, which
            only a test wants.
        head: Config of a network ``(latents, times, labels) -> velocity``, e.g. :class:`LatentDiT`.
        times: Distribution of training times, ``'uniform'`` or ``'logit-normal'``.
        class_dropout: Share of training clips whose class is hidden, so that guidance has an unconditional model.
        condition_prob: Share of training clips whose first latent frames, 1 to all but one of them, are given clean:
            what continuation and image-to-video need. 0 trains none.
        data_preprocessor: Config; :class:`VideoDataPreprocessor` if None.
        init_cfg: As for every MMEngine module.

    Attributes:
        optimized_modules (dict[str, nn.Module]): Name of an optimiser -> the submodule it trains.
        parallel (dict[str, Callable]): See :class:`VideoAutoencoder`.
        backbone_source (dict[str, str] | None): ``path`` and ``sha256`` of the backbone's checkpoint.
    """

    def __init__(
        self,
        backbone: dict,
        backbone_checkpoint: str | None,
        head: dict,
        times: str = 'uniform',
        class_dropout: float = 0.1,
        condition_prob: float = 0.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or {'type': 'pvvae_plugin.VideoDataPreprocessor'}, init_cfg)
        for name, value in (('class_dropout', class_dropout), ('condition_prob', condition_prob)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f'{name} must lie in [0, 1], got {value}')
        self.backbone = MODELS.build(backbone).requires_grad_(False).eval()
        self.backbone_source = None
        if backbone_checkpoint is not None:
            sha256 = load_backbone(self.backbone, backbone_checkpoint)
            self.backbone_source = {'path': backbone_checkpoint, 'sha256': sha256}
        self.head = MODELS.build(head)
        if self.head.latent_channels != self.backbone.latent_channels:
            raise ValueError(
                f'the head works on {self.head.latent_channels} latent channels, the backbone makes '
                f'{self.backbone.latent_channels}: set model.head.latent_channels={self.backbone.latent_channels}'
            )
        self.times = times
        self.class_dropout = class_dropout
        self.condition_prob = condition_prob
        self.parallel: dict[str, Any] = {}

    @property
    def optimized_modules(self) -> dict[str, nn.Module]:
        return {'head': self.head}

    def train(self, mode: bool = True) -> LatentVideoGenerator:
        """As for every module, but the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def train_step(self, data: dict, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """One step of the head."""
        optim = optim_wrapper['head'] if isinstance(optim_wrapper, OptimWrapperDict) else optim_wrapper
        with optim.optim_context(self.parallel.get('head', self.head)):
            data = self.data_preprocessor(data, training=True)
            losses = self.loss(data['inputs'], data['data_samples'])
        total, log = self.parse_losses(losses)
        optim.update_params(total)
        return log

    def forward(
        self, inputs: Tensor, data_samples: list[VideoDataSample], mode: str = 'loss'
    ) -> dict[str, Tensor] | list[VideoDataSample]:
        """MMEngine's modes: ``'loss'``; ``'predict'`` fills in ``flow_loss`` of each sample.

        Args:
            inputs: Clips ``(N, 3, T, H, W)`` in [-1, 1], or moments ``(N, 2 C, t, h, w)``.
            data_samples: One for each clip.
            mode: Which.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            with torch.no_grad():
                for sample, loss in zip(data_samples, self._clip_losses(inputs, data_samples), strict=True):
                    sample.flow_loss = loss
            return data_samples
        raise ValueError(f"mode must be 'loss' or 'predict', got {mode!r}")

    def loss(self, inputs: Tensor, data_samples: list[VideoDataSample]) -> dict[str, Tensor]:
        """Mean squared error of the velocity over all latents that are not given."""
        return {'loss_flow': self._clip_losses(inputs, data_samples).mean()}

    def _clip_losses(self, inputs: Tensor, data_samples: list[VideoDataSample]) -> Tensor:
        """One loss for each clip, ``(N,)``, so that means over batches and processes add up."""
        keys = [sample.metainfo.get('draw_key') for sample in data_samples]
        generators = None if None in keys else [torch_generator(k, 'flow', device=inputs.device) for k in keys]
        with torch.no_grad():
            latents = self.backbone.normalize_latents(self._posterior(inputs).sample(generators)).float()
        noise = randn_like(latents, generators)
        times = flow.sample_times(len(inputs), self.times, generators, inputs.device)
        labels = self._labels(data_samples, inputs.device, generators)
        given = self._given_frames(latents, generators)
        frame_times = flow.frame_times(times, given, latents.shape[2])  # (N, t), 1 where given
        noisy = flow.interpolate(latents, noise, frame_times)
        head = self.parallel.get('head', self.head)
        velocity = head(noisy, frame_times if self.condition_prob else times, labels).float()
        squared = (velocity - flow.velocity_target(latents, noise)).square().mean(dim=(1, 3, 4))  # (N, t)
        wanted = torch.arange(latents.shape[2], device=inputs.device)[None] >= given[:, None]
        return (squared * wanted).sum(1) / wanted.sum(1)

    def _posterior(self, inputs: Tensor) -> DiagonalGaussian:
        """Of clips ``(N, 3, T, H, W)``, or of cached moments ``(N, 2 C, t, h, w)``."""
        if inputs.shape[1] == 2 * self.backbone.latent_channels:
            return DiagonalGaussian(*inputs.chunk(2, dim=1))
        return self.backbone.encode(inputs)

    def _labels(self, samples: list[VideoDataSample], device: torch.device, generators: Any) -> Tensor | None:
        if self.head.null_label is None:
            return None
        labels = [sample.metainfo.get('label') for sample in samples]
        if None in labels:
            raise ValueError(
                f'{samples[labels.index(None)].metainfo.get("path")} has no label, but the head is class-conditional: '
                'use labelled data, or set model.head.num_classes=None'
            )
        labels = torch.tensor(labels, device=device)
        hidden = flow.sample_times(len(samples), 'uniform', generators, device) < self.class_dropout
        return torch.where(hidden, self.head.null_label, labels) if self.training else labels

    def _given_frames(self, latents: Tensor, generators: Any) -> Tensor:
        """How many first latent frames each clip is given clean, ``(N,)``."""
        n, _, t = latents.shape[:3]
        if not self.condition_prob or t == 1:
            return torch.zeros(n, dtype=torch.long, device=latents.device)
        chosen = flow.sample_times(n, 'uniform', generators, latents.device) < self.condition_prob
        count = 1 + (flow.sample_times(n, 'uniform', generators, latents.device) * (t - 1)).long()
        return torch.where(chosen, count, 0)

    @torch.no_grad()
    def generate(
        self,
        num: int,
        num_frames: int,
        size: tuple[int, int],
        labels: Sequence[int] | None = None,
        steps: int = 100,
        guidance: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        shift: float = 1.0,
        solver: str = 'euler',
        seed: int = 0,
        batch_size: int = 8,
        first_frames: Tensor | None = None,
        indices: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Make videos; each follows from ``seed`` and its index alone, whatever the batch and the other processes.

        Args:
            num: How many.
            num_frames: Frames ``T`` of each, ``1 + k * p_t``.
            size: Height and width in pixels, dividing by ``p_s``.
            labels: Class of each; None for an unconditional head.
            steps: Calls of the network.
            guidance: Classifier-free guidance scale; 1 is none.
            interval: Times at which guidance is on.
            shift: Timestep shift, see :func:`time_grid`.
            solver: ``'euler'`` or ``'heun'``.
            seed: Seed of the noise.
            batch_size: Videos made at once.
            first_frames: Frames to continue, ``(num, 3, T', H, W)`` in [-1, 1], for a head trained with
                ``condition_prob``. One frame animates an image.
            indices: Which of the ``num`` videos to make, e.g. a process's share; all if None.

        Yields:
            Index and video ``(3, T, H, W)``, in the order of ``indices``.

        Raises:
            ValueError: If an argument does not fit.
        """
        labels = self._check_generation(num, labels, solver, first_frames)
        vae, device = self.backbone, next(self.head.parameters()).device
        shape = self._latent_shape(num_frames, size)
        indices = list(range(num)) if indices is None else list(indices)
        self.eval()
        for start in range(0, len(indices), batch_size):
            chosen = indices[start : start + batch_size]
            generators = [torch_generator(seed, 'generate', i, device=device) for i in chosen]
            noise = randn_like(torch.empty(len(chosen), *shape, device=device), generators)
            if labels is None:
                velocity = functools.partial(self.head, labels=None)
            else:
                classes = torch.tensor([labels[i] for i in chosen], device=device)
                velocity = flow.with_guidance(self.head, classes, self.head.null_label, guidance, interval)
            clean = None
            if first_frames is not None:
                observed = first_frames[chosen].to(device)
                clean = vae.normalize_latents(vae.encode(observed).mode()).float()
                velocity = flow.with_conditioned_frames(velocity, clean, clean.shape[2])
            latents = SOLVERS[solver](velocity, noise, steps, shift)
            if clean is not None:
                latents = flow.condition_frames(latents, clean, clean.shape[2])
            videos = vae.decode(vae.denormalize_latents(latents)).float().clamp(-1, 1)
            yield from zip(chosen, videos, strict=True)

    def _latent_shape(self, num_frames: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        vae = self.backbone
        vae.check_video(torch.empty(1, 3, num_frames, *size, device='meta'))
        height, width = (side // vae.spatial_ratio for side in size)
        return vae.latent_channels, frames_to_groups(num_frames, vae.temporal_ratio), height, width

    def _check_generation(
        self, num: int, labels: Sequence[int] | None, solver: str, first_frames: Tensor | None
    ) -> list[int] | None:
        if solver not in SOLVERS:
            raise ValueError(f'solver must be one of {", ".join(SOLVERS)}, got {solver!r}')
        if first_frames is not None and (len(first_frames) != num or not self.condition_prob):
            raise ValueError(
                f'first_frames must hold {num} clips for a model trained with condition_prob > 0; got '
                f'{len(first_frames)} clips and condition_prob={self.condition_prob}'
            )
        if self.head.null_label is None:
            if labels is not None:
                raise ValueError('the head is unconditional: give no labels')
            return None
        labels = None if labels is None else [int(label) for label in labels]
        if labels is None or len(labels) != num or not all(0 <= c < self.head.null_label for c in labels):
            raise ValueError(f'labels must be {num} classes in 0..{self.head.null_label - 1}, got {labels}')
        return labels

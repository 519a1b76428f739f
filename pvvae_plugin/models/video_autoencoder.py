"""VideoAutoencoder: training and evaluation of a predictive VAE (paper, stages 1 to 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from pvvae_plugin.functional.keyed_random import torch_rngs
from pvvae_plugin.models.losses import adaptive_weight
from pvvae_plugin.models.vae import PredictiveOutput
from pvvae_plugin.registry import MODELS
from pvvae_plugin.structures import VideoDataSample
from pvvae_plugin.temporal import ObservedGroups, frames_to_groups, groups_to_frames


@MODELS.register_module()
class VideoAutoencoder(BaseModel):
    """Video autoencoder for the VAE training stages: backbone + loss (+ discriminator).

    Args:
        backbone: Config of a VAE with the interface of :class:`PredictiveVAE`.
        loss: Config of the reconstruction objective, e.g. :class:`PredictiveReconLoss`.
        discriminator: Config of a discriminator ``video -> logits``; None for no adversarial term.
        adversarial: Config of :class:`AdversarialLoss`; required with a discriminator, and only then.
        freeze_encoder: Train only the decoder (stage 3); encoder and padding token keep the loaded weights.
        data_preprocessor: Config of the preprocessor; :class:`VideoDataPreprocessor` if None.
        init_cfg: MMEngine initialization config.

    Attributes:
        optimized_modules (dict[str, nn.Module]): Optimizer name -> submodule that it trains.
        parallel (dict[str, Callable]): Submodule name -> its data-parallel wrapper, filled by the wrapper of the whole
            model. It is a plain dict to keep the names in checkpoints independent of the distribution strategy.

    Example:
        >>> from pvvae_plugin.registry import MODELS
        >>> from pvvae_plugin.structures import VideoDataSample
        >>> vae = dict(type='PredictiveVAE', latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
        >>> model = MODELS.build(dict(type='VideoAutoencoder', backbone=vae, loss=dict(type='PredictiveReconLoss')))
        >>> sample = VideoDataSample(metainfo=dict(observed_groups=(True, False, False)))
        >>> losses = model(torch.zeros(1, 3, 9, 32, 32), [sample], mode='loss')
        >>> sorted(losses)
        ['kl', 'loss_diff', 'loss_kl', 'loss_mse', 'mse_observed', 'mse_predicted']
    """

    sample_fields = ('video', 'latents', 'reconstruction', 'predictions')  # added by forward(mode='predict')

    def __init__(
        self,
        backbone: dict,
        loss: dict,
        discriminator: dict | None = None,
        adversarial: dict | None = None,
        freeze_encoder: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or {'type': 'pvvae_plugin.VideoDataPreprocessor'}, init_cfg)
        if (discriminator is None) != (adversarial is None):
            raise ValueError('discriminator and adversarial must be set together: give both, or neither')
        self.backbone = MODELS.build(backbone)
        self.loss = MODELS.build(loss)
        self.discriminator = MODELS.build(discriminator) if discriminator else None
        self.adversarial = MODELS.build(adversarial) if adversarial else None
        self.freeze_encoder = freeze_encoder
        if freeze_encoder:
            self.backbone.freeze_encoder()
        self.parallel: dict[str, Callable[..., Any]] = {}

    @property
    def optimized_modules(self) -> dict[str, nn.Module]:
        modules = {'vae': self.backbone}
        if self.discriminator is not None:
            modules['discriminator'] = self.discriminator
        return modules

    def forward(
        self, inputs: Tensor, data_samples: list[VideoDataSample], mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[VideoDataSample]:
        """Run one of MMEngine's three modes.

        Args:
            inputs: ``(N, 3, T, H, W)`` in [-1, 1].
            data_samples: One sample per clip.
            mode: ``'tensor'`` returns reconstructions. ``'loss'`` returns the loss terms except the adversarial one.
                ``'predict'`` fills in reconstruction and predictions of the samples and returns them.

        Example:
            >>> from pvvae_plugin.models import VideoAutoencoder
            >>> from pvvae_plugin.structures import VideoDataSample
            >>> vae = dict(type='PredictiveVAE', latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> model = VideoAutoencoder(backbone=vae, loss=dict(type='PredictiveReconLoss')).eval()
            >>> (sample,) = model(torch.zeros(1, 3, 9, 32, 32), [VideoDataSample()], mode='predict')
            >>> {observed: tuple(video.shape) for observed, video in sample.predictions.items()}
            {1: (3, 9, 32, 32), 2: (3, 9, 32, 32)}
        """
        if mode == 'tensor':
            return self.backbone(inputs, self._observed(inputs, data_samples)).reconstruction
        if mode == 'loss':
            return self.loss(self._run_backbone(inputs, data_samples), inputs)
        if mode == 'predict':
            return self._predict(inputs, data_samples)
        raise ValueError(f"mode must be 'tensor', 'loss' or 'predict', got {mode!r}")

    def train_step(self, data: dict, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """Run one step of the VAE and, after the adversarial start, one of the discriminator."""
        several = isinstance(optim_wrapper, OptimWrapperDict)
        vae_optim = optim_wrapper['vae'] if several else optim_wrapper
        adversarial = self._adversarial_now()
        with vae_optim.optim_context(self.parallel.get('backbone', self.backbone)):
            # 1. Move the clips to the device, scaled to [-1, 1].
            data = self.data_preprocessor(data, training=True)
            video = data['inputs']  # (N, 3, T, H, W)
            # 2. Encode the observed groups, pad, and decode the whole clip.
            output = self._run_backbone(video, data['data_samples'])
            # 3. Compute the loss over the whole clip, plus the adversarial term after its start.
            if adversarial:
                losses, objective = self._adversarial_losses(output, video)
                total, log = self.parse_losses(losses)
                total = total + objective
            else:
                total, log = self.parse_losses(self.loss(output, video))
        # 4. Update the VAE.
        vae_optim.update_params(total)
        # 5. Update the discriminator on the same clips.
        if adversarial:
            if hasattr(optim_wrapper['discriminator'], 'follow'):
                optim_wrapper['discriminator'].follow(vae_optim)
            log.update(self._train_discriminator(video, output.reconstruction, optim_wrapper['discriminator']))
        return log

    def _adversarial_now(self) -> bool:
        iteration = MessageHub.get_current_instance().get_info('iter', 0)  # of the run, kept by RuntimeInfoHook
        return self.adversarial is not None and iteration >= self.adversarial.start_iter

    def _adversarial_losses(self, output: PredictiveOutput, video: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the values of all loss terms, and a scalar 0 with the gradient of their sum.

        The adaptive weight needs the gradients of the reconstruction and of the adversarial loss separately. Each is
        computed once, up to the output of the VAE, which frees the graphs of LPIPS and of the discriminator before the
        only backward pass through the VAE.
        """
        attached = (output.reconstruction, output.posterior.mean, output.posterior.logvar)
        pixels, mean, logvar = (tensor.detach().requires_grad_() for tensor in attached)
        # 1. All terms but the adversarial one. The KL term has no gradient at the pixels.
        posterior = replace(output.posterior, mean=mean, logvar=logvar)
        losses = self.loss(replace(output, reconstruction=pixels, posterior=posterior), video)
        rec_loss, _ = self.parse_losses(losses)
        gradients = torch.autograd.grad(rec_loss, (pixels, mean, logvar), materialize_grads=True)
        # 2. The adversarial term.
        with frozen(self.discriminator):
            gan_loss = self.adversarial.vae_loss(self.discriminator(pixels))
        (gan_gradient,) = torch.autograd.grad(gan_loss, pixels)
        factor = adaptive_weight(output.reconstruction, gradients[0], gan_gradient, self.backbone.last_layer)
        weight = self.adversarial.weight * factor
        losses = {name: value.detach() for name, value in losses.items()}
        losses.update(loss_gan=weight * gan_loss.detach(), gan_factor=factor)
        # 3. A scalar whose gradient at the VAE's outputs is that of the sum.
        gradients = (gradients[0] + weight.to(gan_gradient.dtype) * gan_gradient, *gradients[1:])
        objective = sum(
            (tensor * gradient).sum()
            for tensor, gradient in zip(attached, gradients, strict=True)
            if tensor.requires_grad
        )
        return losses, objective - objective.detach()

    def _train_discriminator(
        self, video: Tensor, reconstruction: Tensor, optim_wrapper: OptimWrapper
    ) -> dict[str, Tensor]:
        discriminator = self.parallel.get('discriminator', self.discriminator)
        with optim_wrapper.optim_context(discriminator):
            # A single pass for both, because a data-parallel wrapper expects one forward per backward.
            both = torch.cat([video.to(reconstruction.dtype), reconstruction.detach()])
            real_logits, fake_logits = discriminator(both).chunk(2)
            losses = self.adversarial.discriminator_loss(real_logits, fake_logits)
        total, log = self.parse_losses(losses)
        optim_wrapper.update_params(total)
        log.pop('loss')  # this key belongs to the VAE's total
        return log

    def _run_backbone(self, video: Tensor, data_samples: list[VideoDataSample]) -> PredictiveOutput:
        backbone = self.parallel.get('backbone', self.backbone)
        return backbone(video, self._observed(video, data_samples), self._rngs(video, data_samples))

    def _observed(self, video: Tensor, data_samples: list[VideoDataSample]) -> ObservedGroups:
        """Collect the observed groups per clip; all groups if a sample does not specify them."""
        num_groups = frames_to_groups(video.shape[2], self.backbone.temporal_ratio)
        # Third-party transforms may still write the number of leading groups.
        patterns = [
            sample.metainfo.get('observed_groups', sample.metainfo.get('num_observed_groups', num_groups))
            for sample in data_samples
        ]
        return ObservedGroups.of(patterns, len(video), num_groups, video.device)

    @staticmethod
    def _rngs(video: Tensor, data_samples: list[VideoDataSample]) -> list[torch.Generator] | None:
        return torch_rngs([sample.metainfo.get('draw_key') for sample in data_samples], 'latents', video.device)

    @torch.no_grad()
    def _predict(self, video: Tensor, data_samples: list[VideoDataSample]) -> list[VideoDataSample]:
        """Fill in ``video``, ``latents``, ``reconstruction`` and the ``predictions`` for 1 to G - 1 observed groups."""
        vae = self.backbone
        num_groups = frames_to_groups(video.shape[2], vae.temporal_ratio)
        latents = vae.encode(video).mode()
        reconstruction = vae.decode(latents).float()
        rngs = self._rngs(video, data_samples)
        predictions = {}
        for g in range(1, num_groups):
            # For a causal VAE, encoding a prefix gives the prefix of the clip's encoding.
            seen = (
                latents
                if getattr(vae, 'is_causal', True)
                else vae.encode(video[:, :, : groups_to_frames(g, vae.temporal_ratio)]).mode()
            )
            predictions[g] = vae.decode(vae.pad_latents(seen, num_groups, g, rngs)).float()
        for i, sample in enumerate(data_samples):
            sample.set_metainfo({'temporal_ratio': vae.temporal_ratio})
            sample.video = video[i]
            sample.latents = latents[i].float()
            sample.reconstruction = reconstruction[i]
            sample.predictions = {g: clip[i] for g, clip in predictions.items()}
        return data_samples


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Freeze the parameters of ``module`` within the context. Gradients still flow through to its inputs."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

"""Hook that sets the latent statistics of a generator's backbone."""

from __future__ import annotations

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from pvvae_plugin.functional.keyed_random import torch_rng
from pvvae_plugin.registry import HOOKS


@HOOKS.register_module()
class LatentStatisticsHook(Hook):
    """Set ``latent_mean`` and ``latent_std`` of the frozen backbone before training starts.

    Cached latents provide their statistics in the ``metainfo`` of :class:`LatentDataset`. For clips encoded on the fly,
    the statistics are measured on sampled latents of ``num_clips`` training clips and are equal in all processes. A
    backbone published with statistics keeps them. A run that resumes, or starts from another generator, keeps the
    statistics of the checkpoint, because its head was trained with them.

    Args:
        num_clips: Number of clips to encode, spread over the dataset.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='LatentStatisticsHook', num_clips=64))  # an entry of custom_hooks
        >>> hook.num_clips
        64
    """

    def __init__(self, num_clips: int = 256) -> None:
        if num_clips < 1:
            raise ValueError(f'num_clips must be at least 1, got {num_clips}')
        self.num_clips = num_clips
        self._from_checkpoint = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # FrozenBackboneHook has added the backbone's own weights.
        self._from_checkpoint = checkpoint.get('has_statistics', 'backbone.latent_mean' in checkpoint['state_dict'])

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if self._from_checkpoint or getattr(model.backbone, 'knows_statistics', False):
            return
        dataset = runner.train_dataloader.dataset
        known = getattr(dataset, 'metainfo', {})
        if 'latent_mean' in known:
            mean, std = (torch.tensor(known[name]) for name in ('latent_mean', 'latent_std'))
        else:
            mean, std = self._measure(model, dataset)
        if not (torch.isfinite(mean).all() and (std > 0).all()):
            raise ValueError('a channel of the latents does not vary, or is not finite; check that the VAE is trained')
        model.backbone.latent_mean.copy_(mean)
        model.backbone.latent_std.copy_(std)
        runner.logger.info(
            f'latents: channel std {std.min():.3f} to {std.max():.3f}, channel means up to {mean.abs().max():.3f}'
        )

    @torch.no_grad()
    def _measure(self, model: torch.nn.Module, dataset: torch.utils.data.Dataset) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean and standard deviation of each channel, ``(C,)``, in float64 over all positions."""
        indices = torch.linspace(0, len(dataset) - 1, min(self.num_clips, len(dataset))).long().tolist()
        total = torch.zeros_like(model.backbone.latent_mean, dtype=torch.float64)
        squares, count = total.clone(), 0
        for i in indices[dist.get_rank() :: dist.get_world_size()]:
            sample = dataset[i]
            batch = model.data_preprocessor({'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]})
            generator = torch_rng('latent statistics', i, device=batch['inputs'].device)
            latents = model.backbone.encode(batch['inputs']).sample(generator).double()  # (1, C, t, h, w)
            total = total + latents.sum(dim=(0, 2, 3, 4))
            squares = squares + latents.square().sum(dim=(0, 2, 3, 4))
            count += latents[0, 0].numel()
        sums = torch.stack([total, squares, torch.full_like(total, count)])
        dist.all_reduce(sums)
        mean = sums[0] / sums[2]
        return mean, (sums[1] / sums[2] - mean.square()).clamp_min(0).sqrt()

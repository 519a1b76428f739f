"""Says before a run starts what it will need."""

from __future__ import annotations

import os

import torch
from mmengine import dist
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from pvvae_plugin.engine.cost import backbone_cost, convolution_rate
from pvvae_plugin.registry import HOOKS

GIB = 2**30


@HOOKS.register_module()
class CostEstimateHook(Hook):
    """Logs parameters, memory and time before the first iteration.

    Counted are the VAE's work and activations for one step in which nothing is dropped, weights, gradients, AdamW's
    two moments and averages; not the discriminator's and LPIPS's work and activations, nor the allocator's slack. The
    time is that of the VAE's convolutions at the rate this device reaches in one plain convolution. Dropping makes a
    step cheaper, what is not counted makes it dearer: the log's ETA tells after some iterations.
    """

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        frames, height, width, batch = _largest_step(runner.train_dataloader)
        cost = backbone_cost(runner.cfg.model.backbone, frames, height, width)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        bf16 = 'bfloat16' in str(runner.cfg.optim_wrapper)
        averaged = any(type(hook).__name__ == 'TrainedWeightsEMAHook' for hook in runner.hooks)
        encoder_trains = any(p.requires_grad for p in model.backbone.encoder.parameters())
        kept = cost.decode_activation_bytes + (cost.encode_activation_bytes if encoder_trains else 0)
        activations = kept * batch // (2 if bf16 else 1)
        memory = 4 * (total + trained * (4 if averaged else 3)) + activations
        # A backward pass costs about two forward ones.
        flops = batch * (3 * cost.decode_flops + (3 if encoder_trains else 1) * cost.encode_flops)
        steps = runner.max_iters - runner.iter
        device = torch.device(get_device())
        rate = convolution_rate(device, torch.bfloat16 if bf16 else torch.float32)
        runner.logger.info(
            f'This run, for each of {dist.get_world_size()} process(es), with {batch} clip(s) of {frames} x {height} x '
            f'{width} a step and nothing dropped:\n'
            f'  parameters  {total / 1e6:.1f} M, {trained / 1e6:.1f} M of them trained\n'
            f'  memory      about {memory / GIB:.1f} GiB, {activations / GIB:.1f} GiB of it activations of the VAE\n'
            f'  compute     {flops / 1e12:.2f} TFLOP a step; this device reaches {rate / 1e12:.2f} TFLOP/s in a '
            'convolution\n'
            f'  time        about {_duration(steps * flops / rate)} for {steps} iterations at that rate'
        )
        available = _available_memory(device)
        if memory > available:
            runner.logger.warning(
                f'this needs about {memory / GIB:.1f} GiB and {available / GIB:.1f} GiB are there. Lower '
                'train_dataloader.batch_size, set model.backbone.gradient_checkpointing=True, or use --amp'
            )


def _largest_step(loader: DataLoader) -> tuple[int, int, int, int]:
    """Frames, height, width and number of clips of the step with the most pixels."""
    _, frames, height, width = loader.dataset[0]['inputs'].shape
    resolutions = getattr(loader.batch_sampler, 'resolutions', None)
    if resolutions is None:
        return frames, height, width, loader.batch_size or 1
    largest = max(resolutions, key=lambda resolution: resolution['batch_size'] * resolution['size'] ** 2)
    return frames, largest['size'], largest['size'], largest['batch_size']


def _available_memory(device: torch.device) -> int:
    if device.type == 'cuda':
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def _duration(seconds: float) -> str:
    for unit, length in (('days', 86400), ('hours', 3600), ('minutes', 60)):
        if seconds >= 2 * length:
            return f'{seconds / length:.1f} {unit}'
    return f'{seconds:.0f} seconds'

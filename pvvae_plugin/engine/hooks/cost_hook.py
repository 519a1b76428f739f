"""Says before a run starts what it will need."""

from __future__ import annotations

import os

import torch
from mmengine import dist
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from pvvae_plugin.engine.cost import backbone_cost, convolution_rate
from pvvae_plugin.registry import HOOKS

GIB = 2**30


@HOOKS.register_module()
class CostEstimateHook(Hook):
    """Logs parameters, memory and a lower bound of the time before the first iteration.

    Counted: weights, gradients, AdamW's two moments, averages, and the activations of the VAE for one batch. Not
    counted: the discriminator's and LPIPS's activations and the allocator's slack, so memory, too, is a lower bound.
    The time is that of the VAE's convolutions at the rate this device reaches in one plain convolution.
    """

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        sample = runner.train_dataloader.dataset[0]
        _, frames, height, width = sample['inputs'].shape
        cost = backbone_cost(runner.cfg.model.backbone, frames, height, width)
        batch = runner.train_dataloader.batch_size or 1  # None where a batch sampler chooses it
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        bf16 = 'bfloat16' in str(runner.cfg.optim_wrapper)
        averaged = any(type(hook).__name__ == 'TrainedWeightsEMAHook' for hook in runner.hooks)
        activations = cost.activation_bytes * batch // (2 if bf16 else 1)
        memory = 4 * (total + trained * (4 if averaged else 3)) + activations
        flops = 3 * batch * (cost.encode_flops + cost.decode_flops)
        steps = runner.max_iters - runner.iter
        device = torch.device(get_device())
        rate = convolution_rate(device, torch.bfloat16 if bf16 else torch.float32)
        runner.logger.info(
            f'This run, for each of {dist.get_world_size()} process(es), at {frames} x {height} x {width} and '
            f'{batch} clip(s) a step:\n'
            f'  parameters  {total / 1e6:.1f} M, {trained / 1e6:.1f} M of them trained\n'
            f'  memory      at least {memory / GIB:.1f} GiB, {activations / GIB:.1f} GiB of it activations\n'
            f'  compute     {flops / 1e12:.2f} TFLOP a step; this device reaches {rate / 1e12:.2f} TFLOP/s in a '
            'convolution\n'
            f'  time        at least {_duration(steps * flops / rate)} for {steps} iterations'
        )
        available = _available_memory(device)
        if memory > available:
            runner.logger.warning(
                f'this needs at least {memory / GIB:.1f} GiB and {available / GIB:.1f} GiB are there. Lower '
                'train_dataloader.batch_size, set model.backbone.gradient_checkpointing=True, or use --amp'
            )


def _available_memory(device: torch.device) -> int:
    if device.type == 'cuda':
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def _duration(seconds: float) -> str:
    for unit, length in (('days', 86400), ('hours', 3600), ('minutes', 60)):
        if seconds >= 2 * length:
            return f'{seconds / length:.1f} {unit}'
    return f'{seconds:.0f} seconds'

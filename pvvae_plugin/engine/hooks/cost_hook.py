"""Estimate of the memory and time of a run, logged before it starts."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine import dist
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from pvvae_plugin.functional.sharded import local_numel
from pvvae_plugin.registry import HOOKS

from ..cost import backbone_cost, convolution_rate, head_cost, matmul_rate

GIB = 2**30
ENCODER = 'the encoder'
EMULATED = 0.7  # of the float32 rate: below it, bfloat16 only costs time


@dataclass(frozen=True)
class Work:
    """Work of a training step in one kind of operation.

    Attributes:
        flops: Floating-point operations per step.
        what: Part of the model that computes them, e.g. ``'in the head'``.
        rate: FLOP/s that this device reaches in one plain operation of this kind.
        kind: Name of this operation.
        float32_rate: The same rate in float32.
    """

    flops: float
    what: str
    rate: float
    kind: str
    float32_rate: float

    @property
    def is_emulated(self) -> bool:
        return self.rate < EMULATED * self.float32_rate

    def __str__(self) -> str:
        return f'{_flop(self.flops)} per step {self.what}; {_flop(self.rate)}/s in {self.kind}'


@dataclass(frozen=True)
class StepCost:
    """Cost of a training step, excluding weights and optimizer states.

    Attributes:
        clips: Description of the batch.
        activations: Bytes of activations.
        whose: Part of the model that they belong to.
        work: Operations of the step.
    """

    clips: str
    activations: int
    whose: str
    work: tuple[Work, ...]


@HOOKS.register_module()
class CostEstimateHook(Hook):
    """Log parameters, memory and time before the first iteration.

    The memory estimate includes weights, gradients, AdamW's two moments, the EMA and activations:

    - For a VAE, it includes the work and activations of a step without dropping. The discriminator and LPIPS are not
      included.
    - For a generator, it includes the head and, if clips are encoded on the fly, the encoder. Their activations do not
      coexist, so the larger of the two counts.

    Allocator overhead is not included. The time estimate divides the operations by the FLOP/s that this device reaches
    in one plain convolution and one plain matrix product. Dropping makes a step cheaper, and operations that are not
    counted make it more expensive. If this device is slower in bfloat16 than in float32, the hook warns and does not
    estimate the time. The time of the first iteration is logged, too. The ETA in the log is accurate after
    some iterations.

    Example:
        >>> from pvvae_plugin.registry import HOOKS
        >>> hook = HOOKS.build(dict(type='CostEstimateHook'))  # an entry of custom_hooks
        >>> sorted(hook.get_triggered_stages())
        ['after_train_iter', 'before_train']
    """

    def __init__(self) -> None:
        self._started: float | None = None  # None after the first iteration

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        device = torch.device(get_device())
        step = (_generator_step if hasattr(model, 'head') else _vae_step)(runner, model, device)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        held = sum(local_numel(p) for p in model.parameters())  # smaller than the total if weights are sharded
        held_trained = sum(local_numel(p) for p in model.parameters() if p.requires_grad)
        averaged = any(type(hook).__name__ == 'TrainedWeightsEMAHook' for hook in runner.hooks)
        memory = 4 * (held + held_trained * (4 if averaged else 3)) + step.activations
        steps = runner.max_iters - runner.iter
        emulated = [work for work in step.work if work.is_emulated]
        if emulated:
            duration = 'not estimated, because this device emulates bfloat16'
        else:
            seconds = steps * sum(work.flops / work.rate for work in step.work)
            duration = f'about {_duration(seconds)} for {steps} iterations at these rates'
        compute = '\n              '.join(str(work) for work in step.work)
        runner.logger.info(
            f'Estimated cost for each of {dist.get_world_size()} process(es), with {step.clips}:\n'
            f'  parameters  {total / 1e6:.1f} M, {trained / 1e6:.1f} M trainable\n'
            f'  memory      about {_size(memory)}, including {_size(step.activations)} for activations of '
            f'{step.whose}\n'
            f'  compute     {compute}\n'
            f'  time        {duration}'
        )
        for work in emulated:
            options = ' '.join(f'{place}.dtype=float32' for place in _bfloat16_places(runner))
            runner.logger.warning(
                f'bfloat16 is slower than float32 here: {_flop(work.rate)}/s against {_flop(work.float32_rate)}/s in '
                f'{work.kind}. Train in float32, without --amp and with --cfg-options {options}'
            )
        available = _available_memory(device)
        if memory > available:
            ways = ', '.join(_ways_to_save_memory(runner, model, step))
            runner.logger.warning(
                f'this run needs about {_size(memory)}, but only {_size(available)} are available. To lower it: {ways}'
            )
        self._started = time.monotonic()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        if self._started is not None:
            runner.logger.info(
                f'iteration {runner.iter + 1} of {runner.max_iters} took {time.monotonic() - self._started:.1f} s, '
                'including start-up'
            )
            self._started = None


def _vae_step(runner: Runner, model: nn.Module, device: torch.device) -> StepCost:
    frames, height, width, batch = _largest_step(runner.train_dataloader)
    cost = backbone_cost(runner.cfg.model.backbone, frames, height, width)
    encoder_trains = not model.freeze_encoder
    kept = cost.decode_activation_bytes + (cost.encode_activation_bytes if encoder_trains else 0)
    # A backward pass costs about as much as two forward passes.
    flops = batch * (3 * cost.decode_flops + (3 if encoder_trains else 1) * cost.encode_flops)
    bf16 = bool(_bfloat16_places(runner))
    return StepCost(
        f'{batch} clip(s) of {frames} x {height} x {width} per step and no dropping',
        kept * batch // (2 if bf16 else 1),
        'the VAE',
        (_work(flops, 'in the VAE', 'a convolution on this device', convolution_rate, device, bf16),),
    )


def _generator_step(runner: Runner, model: nn.Module, device: torch.device) -> StepCost:
    inputs, batch = runner.train_dataloader.dataset[0]['inputs'], runner.train_dataloader.batch_size or 1
    cached = len(inputs) != 3  # moments (2 C, t, h, w) instead of clips (3, T, H, W)
    encoding = None if cached else backbone_cost(runner.cfg.model.backbone, *inputs.shape[1:])
    latents = encoding.latent_shape if encoding else (len(inputs) // 2, *inputs.shape[1:])
    cost = head_cost(runner.cfg.model.head, latents)
    bf16 = bool(_bfloat16_places(runner))
    # Norms and residual sums stay in float32: 0.6 instead of 0.5 (a test compares this with a real step).
    kept, whose = int(cost.activation_bytes * batch * (0.6 if bf16 else 1)), 'the head'
    flops = 3 * batch * cost.flops
    work = [_work(flops, 'in the head', 'a matrix product on this device', matmul_rate, device, bf16)]
    if encoding:
        flops = batch * encoding.encode_flops
        work.append(_work(flops, 'in the encoder', 'a float32 convolution', convolution_rate, device, bf16=False))
        if encoding.encode_peak_bytes * batch > kept:
            kept, whose = encoding.encode_peak_bytes * batch, ENCODER
    clips = f'{batch} clip(s) per step, latents of {" x ".join(map(str, latents))}' + (
        ' from a cache' if cached else ''
    )
    return StepCost(clips, kept, whose, tuple(work))


def _ways_to_save_memory(runner: Runner, model: nn.Module, step: StepCost) -> list[str]:
    """Return the settings that would lower the memory of this run."""
    part = 'head' if hasattr(model, 'head') else 'backbone'
    ways = ['a smaller train_dataloader.batch_size'] if (runner.train_dataloader.batch_size or 2) > 1 else []
    if step.whose != ENCODER:  # encoding needs no gradient and runs in float32
        can_recompute = 'gradient_checkpointing' in inspect.signature(type(getattr(model, part))).parameters
        if can_recompute and not runner.cfg.model[part].get('gradient_checkpointing'):
            ways.append(f'model.{part}.gradient_checkpointing=True')
        if not _bfloat16_places(runner):
            ways.append('--amp')
    return [*ways, 'shorter or smaller clips']


def _work(flops: float, what: str, kind: str, measure: Callable[..., float], device: torch.device, bf16: bool) -> Work:
    rate = measure(device, torch.bfloat16 if bf16 else torch.float32)
    return Work(flops, what, rate, kind, measure(device, torch.float32) if bf16 else rate)


def _bfloat16_places(runner: Runner) -> list[str]:
    """Return the places of the optimizer wrappers in the config that train in bfloat16."""
    optim = runner.cfg.optim_wrapper
    entries = {'optim_wrapper': optim} if 'optimizer' in optim else {f'optim_wrapper.{k}': v for k, v in optim.items()}
    return [place for place, entry in entries.items() if isinstance(entry, dict) and entry.get('dtype') == 'bfloat16']


def _largest_step(loader: DataLoader) -> tuple[int, int, int, int]:
    """Return frames, height, width and batch size of the step with the most pixels."""
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


def _flop(count: float) -> str:
    unit, size = next((pair for pair in (('TFLOP', 1e12), ('GFLOP', 1e9)) if count >= pair[1]), ('MFLOP', 1e6))
    return f'{count / size:.1f} {unit}'


def _size(count: float) -> str:
    return f'{count / GIB:.1f} GiB' if count >= GIB else f'{count / 2**20:.1f} MiB'

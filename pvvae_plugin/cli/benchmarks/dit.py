"""Compare the speed of LatentDiT with diffusers' LatteTransformer3DModel of the same width, heads and depth.

    pip install -e ".[benchmarks]"
    pvvae benchmark dit
    python tools/benchmarks/dit.py
    python tools/benchmarks/dit.py --device cuda --size XL --dtype bfloat16 --json dit.json

Calls are interleaved in one process, on the latents of 17 x 256 x 256 clips: 5 x 16 x 16 tokens. A *training step* is
a forward and a backward pass; a *forward pass* is one call without gradients, as in sampling. Gradient checkpointing is
off. With ``--dtype bfloat16`` training steps run under autocast, as with ``tools/train.py --amp``, and forward passes
with weights in bfloat16.

A FLOP is one operation of a matrix product, convolution or attention (a multiply-add counts as 2). Operations are
counted on the meta device with attention as plain products, so recomputation in fused kernels is not counted. The
matrix rate is measured with one large square product in the same rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.files import write_json
from pvvae_plugin.models.dit import LatentDiT
from pvvae_plugin.models.dit.latent_dit import PRESETS

from .common import (
    check_arguments,
    kept_bytes,
    machine,
    matrix_product,
    measure,
    milliseconds,
    now,
    peak_bytes,
    summary,
    versions,
)

SIZES = {'tiny': (4, 256, 4), **PRESETS}  # depth, width, heads; 'tiny' is for CPUs and exists only here
CHANNELS, GRID, NUM_CLASSES = 64, (5, 16, 16), 101
PASSES = ('training step', 'forward pass')  # in this order: the weights change dtype in between


class Latte(nn.Module):
    """Latte model of diffusers with LatentDiT's interface, configured to match it.

    Widths, heads, number of blocks, feed-forward layers, norms and biases are the same, with one token per latent
    position. Only the conditioning differs. Latte's blocks share one projection of the time to shifts, scales and gates
    (``ada_norm_single``), LatentDiT has one per block: Latte has fewer parameters and 0.04% fewer operations. Latte
    could take a class only as a caption, through cross-attention in each spatial block. This is omitted, in Latte's
    favor: it gets no class, and a single unused caption token is projected because the model requires one.
    """

    def __init__(self, depth: int, width: int, heads: int) -> None:
        super().__init__()
        from diffusers import LatteTransformer3DModel
        from diffusers.utils import logging

        logging.set_verbosity_error()  # it warns about an empty list of modules
        self.network = LatteTransformer3DModel(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            in_channels=CHANNELS,
            num_layers=depth // 2,  # pairs of a spatial and a temporal block
            attention_bias=True,
            sample_size=GRID[1],
            patch_size=1,
            activation_fn='gelu-approximate',
            norm_type='ada_norm_single',
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            caption_channels=1,
            video_length=GRID[0],
        )
        self.blocks = [*self.network.transformer_blocks, *self.network.temporal_transformer_blocks]

    def forward(self, latents: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        caption = latents.new_zeros(len(latents), 1, 1)
        return self.network(latents, 1000 * times, caption, return_dict=False)[0]


def build(name: str, size: str, device: str) -> nn.Module:
    depth, width, heads = SIZES[size]
    with torch.device(device):
        if name == 'Latte':
            return Latte(depth, width, heads)
        return LatentDiT(CHANNELS, NUM_CLASSES, depth=depth, hidden_size=width, num_heads=heads)


def inputs(batch: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents ``(N, C, t, h, w)``, and times and labels ``(N,)``."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, CHANNELS, *GRID, generator=generator)
    times = torch.rand(batch, generator=generator)
    return latents.to(device), times.to(device), (torch.arange(batch) % NUM_CLASSES).to(device)


def run(model: nn.Module, which: str, data: tuple[Tensor, Tensor, Tensor], autocast: bool = False) -> None:
    if which == 'forward pass':
        with torch.no_grad():
            model(*data)
        return
    model.zero_grad(set_to_none=True)
    with torch.autocast(data[0].device.type, torch.bfloat16) if autocast else nullcontext():
        velocity = model(*data)
    (velocity.float() - data[0]).square().mean().backward()


def count(name: str, size: str, batch: int) -> dict:
    """Count the parameters and the operations per pass on the meta device."""
    model, data = build(name, size, 'meta'), inputs(batch, 'meta')
    flop = {}
    for which in PASSES:
        with FlopCounterMode(display=False) as counter:
            run(model, which, data)
        flop[which] = counter.get_total_flops()
    return {'parameters': num_parameters(model), 'flop': flop}


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def draw_weights(model: nn.Module) -> None:
    """Randomize all weights: a new LatentDiT has zero gates, and products with zeros can be faster."""
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02, generator=generator)


def memory(call: Callable[[], object], model: nn.Module, device: str) -> int:
    """Return the peak bytes of a step with the weights (GPU), or the bytes saved by autograd (CPU)."""
    if device == 'cuda':
        return peak_bytes(call, device) + sum(p.nbytes for p in model.parameters())
    return kept_bytes(call, model)


def compare(args: argparse.Namespace) -> dict:
    """Run all measurements and return the results."""
    dtype = getattr(torch, args.dtype)
    half = dtype != torch.float32
    results = {name: count(name, args.size, args.batch) for name in ('LatentDiT', 'Latte')}
    models = {name: build(name, args.size, args.device) for name in results}
    for model in models.values():
        draw_weights(model)
        for block in model.blocks if args.compile else []:
            block.compile(dynamic=False)  # Latte sees two shapes, which would trigger dynamic shapes
    data = inputs(args.batch, args.device)
    product, product_flop = matrix_product(args.device, dtype)
    rates = {}
    for which in PASSES:
        print(f'{which}, {args.repeats} times with each model:')
        if which == 'forward pass':
            models = {name: model.to(dtype).eval() for name, model in models.items()}
            data = (data[0].to(dtype), *data[1:])
        calls = {name: partial(run, model, which, data, half) for name, model in models.items()}
        seconds = measure({**calls, 'product': product}, args.repeats, args.device)
        rates[which] = product_flop / statistics.median(seconds.pop('product'))
        for name, values in seconds.items():
            results[name].setdefault('seconds', {})[which] = summary(values)
            if args.device == 'cuda' or which == 'training step' and not args.compile:
                models[name].zero_grad(set_to_none=True)
                results[name].setdefault('bytes', {})[which] = memory(calls[name], models[name], args.device)
                models[name].zero_grad(set_to_none=True)
    return {'models': results, 'matrix_flop_per_second': rates, 'ratios': ratios(results)}


def ratios(results: dict) -> dict:
    """Return the time of Latte relative to LatentDiT, per step and per FLOP."""
    found = {}
    for which in PASSES:
        ours, theirs = (results[name]['seconds'][which]['median'] for name in ('LatentDiT', 'Latte'))
        flop = results['LatentDiT']['flop'][which] / results['Latte']['flop'][which]
        found[which] = {'per step': theirs / ours, 'per FLOP': theirs / ours * flop}
    return found


def facts(args: argparse.Namespace) -> dict:
    """Return date, machine, versions and settings."""
    return {
        'date': now(),
        'machine': machine(args.device),
        'versions': versions('torch', 'diffusers'),
        'command': 'python tools/benchmarks/dit.py ' + ' '.join(args.argv),
        **{name: getattr(args, name) for name in ('device', 'size', 'batch', 'dtype', 'repeats', 'compile')},
        'parameters_of_XL': num_parameters(build('LatentDiT', 'XL', 'meta')),
    }


def table(report: dict) -> str:
    """Return the results as a Markdown table."""
    kept = 'peak' if report['device'] == 'cuda' else 'kept for backward'
    lines = [
        f'| | parameters | ms, median (min to max) | GFLOP | TFLOP/s | of the matrix rate | {kept}, GiB '
        '| Latte takes, per step | per FLOP |',
        '|---|---|---|---|---|---|---|---|---|',
    ]
    for which in PASSES:
        for name, model in report['models'].items():
            times, flop = model['seconds'][which], model['flop'][which]
            rate = flop / times['median']
            size = model.get('bytes', {}).get(which)
            per_step, per_flop = report['ratios'][which].values()
            lines.append(
                f'| {which}, {name} | {model["parameters"] / 1e6:.1f} M | {milliseconds(times)} '
                f'| {flop / 1e9:.1f} | {rate / 1e12:.3f} | {rate / report["matrix_flop_per_second"][which]:.0%} '
                f'| {"" if size is None else f"{size / 2**30:.2f}"} '
                + ('| | |' if name == 'Latte' else f'| {per_step:.2f}x | {per_flop:.2f}x |')
            )
    return '\n'.join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--size', choices=list(SIZES), default='tiny', help='LatentDiT preset (default: tiny)')
    parser.add_argument('--batch', type=int, help='clips (default: 1, on a GPU 8)')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16'], default='float32', help='default: float32')
    parser.add_argument('--repeats', type=int, default=20, help='timed calls per model (default: 20)')
    parser.add_argument('--compile', action='store_true', help='torch.compile the blocks of both')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all results to this file')
    args = parser.parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    if args.batch is None:
        args.batch = 8 if args.device == 'cuda' else 1
    check_arguments(parser, args, ('batch', 'repeats'))
    if importlib.util.find_spec('diffusers') is None:
        parser.error('this benchmark needs diffusers for comparison: pip install -e ".[benchmarks]"')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    report = facts(args)
    report.update(compare(args))
    if args.json:
        write_json(args.json, report)
    versions = ', '.join(f'{name} {version}' for name, version in report['versions'].items())
    print(f'\n{report["date"]}, {report["machine"]}, {versions}\n{report["command"]}')
    print(f'LatentDiT-XL for {NUM_CLASSES} classes: {report["parameters_of_XL"] / 1e6:.1f} M parameters')
    print(f'{args.size}: {args.batch} clip(s) of {" x ".join(map(str, GRID))} tokens, {args.dtype}\n\n{table(report)}')

"""Compare the speed and memory of PredictiveVAE with diffusers' AutoencoderKLWan in the layout of Wan2.2's VAE.

    pip install -e ".[benchmarks]"
    pvvae benchmark vae
    python tools/benchmarks/vae.py                                     # small widths, 2 x 17 x 64 x 64
    python tools/benchmarks/vae.py --size paper                        # the size of Wan2.2's VAE
    python tools/benchmarks/vae.py --size paper --device cuda --dtype bfloat16
    python tools/benchmarks/vae.py --size paper --dtype bfloat16 --batch 4 --side 256 --count-memory   # no timing

Both models encode the same clips and decode latents of the same grid without gradients, interleaved in one process.
Each uses its library's defaults: Wan encodes in chunks of four frames, PredictiveVAE selects its chunks. Weights
are random.

A FLOP is one operation of a convolution or matrix product on data (a multiply-add counts as 2). Taps on padding, in
time and in space, are excluded. The upsampling convolutions of PredictiveVAE count the 4 taps they compute per output,
not the 9 of their definition. The reference rate is measured with a convolution of 32 channels on a CPU, and of a large
matrix product on a GPU. On a CPU, *own convolutions* is the time of all convolutions of a pass, each run alone on its
inputs, relative to the time of the pass.

--count-memory computes nothing: it runs both networks on meta tensors and counts the bytes alive at the same time,
without kernel workspaces and allocator overhead, with norms as fused kernels. This estimate works for any size on any
machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.engine import cost
from pvvae_plugin.files import write_json
from pvvae_plugin.models.vae import PredictiveVAE
from pvvae_plugin.models.vae.layers import CausalConv3d, Upsample

from .common import (
    SMALL_VAE,
    check_arguments,
    check_clip,
    machine,
    matrix_product,
    measure,
    milliseconds,
    now,
    peak_bytes,
    summary,
    versions,
)

# Arguments of PredictiveVAE and of Wan; 'paper' is the default of PredictiveVAE and the size of Wan2.2.
SIZES = {
    'small': (SMALL_VAE, {'base_dim': 32, 'decoder_base_dim': 48, 'z_dim': 16}),
    'paper': ({}, {'base_dim': 160, 'decoder_base_dim': 256, 'z_dim': 48}),
}
PASSES = ('encode', 'decode')
NAMES = ('PredictiveVAE', 'AutoencoderKLWan')


class Wan(nn.Module):
    """AutoencoderKLWan of diffusers in the layout of Wan2.2's VAE, with the interface of this package."""

    def __init__(self, z_dim: int, **widths: int) -> None:
        super().__init__()
        from diffusers import AutoencoderKLWan

        self.network = AutoencoderKLWan(
            z_dim=z_dim,
            **widths,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            temperal_downsample=[False, True, True],
            in_channels=12,
            out_channels=12,
            patch_size=2,
            is_residual=True,
            scale_factor_spatial=16,
            latents_mean=[0.0] * z_dim,
            latents_std=[1.0] * z_dim,
        )

    def encode(self, video: Tensor) -> Tensor:
        return self.network.encode(video).latent_dist.mean

    def decode(self, latents: Tensor) -> Tensor:
        return self.network.decode(latents).sample


class Ours(PredictiveVAE):
    """PredictiveVAE whose ``encode`` returns the mean, like :class:`Wan`."""

    def encode(self, video: Tensor) -> Tensor:
        return super().encode(video).mean


def build(name: str, size: str, compile_blocks: bool = False) -> nn.Module:
    ours, wan = SIZES[size]
    return Ours(**ours, compile=compile_blocks) if name == NAMES[0] else Wan(**wan)


def draw_weights(model: nn.Module) -> None:
    """Randomize all weights: some are initialized to zero, and products with zeros can be faster."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(std=0.02, generator=generator)


def taps(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> int:
    """Count the taps on data along an axis, over all outputs; ``padding`` is the left padding."""
    starts = [place * stride - padding for place in range(outputs)]
    return sum(0 <= start + tap < inputs for start in starts for tap in range(kernel))


def count_flop(model: nn.Module, call: Callable[[], object]) -> int:
    """Count the operations of a pass on data, without padding."""
    frames: dict[nn.Module, int] = {}  # frames that each layer has output so far: later chunks have a past
    total = 0

    def convolution(layer: nn.Module, inputs: tuple, out: Tensor) -> None:
        nonlocal total
        x, weight = inputs[0], layer.weight
        kernel, stride = (1, *weight.shape[2:])[-3:], (1, *layer.stride)[-3:]
        batch = len(x) if x.ndim == 5 else 1
        done, count = frames.get(layer, 0), out.shape[2] if out.ndim == 5 else len(out)
        frames[layer] = done + count
        # Time: the first output sees one frame, except in Wan's strided layers, which wait for three.
        waits = not isinstance(layer, CausalConv3d) and stride[0] == 2
        past = kernel[0] - 1 if not waits else 0
        whole = partial(taps, 10**9, kernel=kernel[0], stride=stride[0], padding=past)
        product = batch * (whole(outputs=done + count) - whole(outputs=done))
        for axis in (-2, -1):
            inner, outer = x.shape[axis], out.shape[axis]
            padded_behind = x.ndim == 4 and stride[-1] == 2
            if padded_behind:  # Wan's strided layers are padded by one row and one column at the end only
                product *= taps(inner - 1, outer, kernel[axis], stride[axis], 0)
            else:
                product *= taps(inner, outer, kernel[axis], stride[axis], kernel[axis] // 2)
        total += 2 * product * weight.shape[0] * weight.shape[1]

    def upsampling(layer: Upsample, inputs: tuple, out: Tensor) -> None:
        nonlocal total
        if layer.space == 2:  # its convolution is fused with the repetition and never called
            d, c = layer.conv.weight.shape[:2]
            height, width = (2 * side - 2 for side in out.shape[-2:])  # 2 taps per output along an axis, 1 at both ends
            total += 2 * len(out) * out.shape[2] * c * d * height * width

    handles = [
        layer.register_forward_hook(upsampling if isinstance(layer, Upsample) else convolution)
        for layer in model.modules()
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, Upsample))
    ]
    with FlopCounterMode(display=False) as counter:
        call()
    for handle in handles:
        handle.remove()
    others = counter.get_flop_counts()['Global']
    return total + sum(flop for operation, flop in others.items() if 'convolution' not in str(operation))


class _Convolutions(TorchFunctionMode):
    """Mode that records every convolution call with its arguments."""

    KINDS = (F.conv2d, F.conv3d, F.conv_transpose2d, torch.ops.aten.mkldnn_convolution)

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Tensor]] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        if function in self.KINDS:
            self.calls.append(partial(function, *args, **(kwargs or {})))
        return function(*args, **(kwargs or {}))


def convolutions_share(call: Callable[[], object], repeats: int) -> float:
    """Return the time of a pass's convolutions, each run alone, relative to the time of the pass."""
    with _Convolutions() as own:
        call()
    whole, alone = [], [[] for _ in own.calls]
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        whole.append(time.perf_counter() - start)
        for convolution, seconds in zip(own.calls, alone, strict=True):
            start = time.perf_counter()
            convolution()
            seconds.append(time.perf_counter() - start)
    return sum(statistics.median(seconds[1:]) for seconds in alone) / statistics.median(whole[1:])


def reference(device: str, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """Return the reference computation for rates, and its number of operations."""
    if device == 'cuda':
        return matrix_product(device, dtype)
    x = torch.randn(2, 32, 17, 64, 64, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
    layer = nn.Conv3d(32, 32, 3, padding=1, dtype=dtype).to(memory_format=torch.channels_last_3d)
    return partial(layer, x), 2 * 2 * taps(17, 17, 3, 1, 1) * taps(64, 64, 3, 1, 1) ** 2 * 32 * 32


@torch.no_grad()
def compare(args: argparse.Namespace) -> dict:
    """Run all measurements and return the results."""
    dtype = getattr(torch, args.dtype)
    generator = torch.Generator().manual_seed(0)
    video = (torch.rand(args.batch, 3, args.frames, args.side, args.side, generator=generator) * 2 - 1).to(
        args.device, dtype
    )
    results: dict[str, dict] = {}
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for name in NAMES:
        with torch.device(args.device):
            model = build(name, args.size, args.compile and name == NAMES[0]).to(dtype).eval()
        draw_weights(model)
        latents = model.encode(video)
        calls[name, 'encode'] = partial(model.encode, video)
        calls[name, 'decode'] = partial(model.decode, latents)
        results[name] = {
            'parameters': sum(p.numel() for p in model.parameters()),
            'weight_bytes': sum(p.nbytes for p in model.parameters()),
            'flop': {},
            'bytes': {},
            'seconds': {},
            'own_convolutions': {},
        }
        meta = build(name, args.size).to('meta').eval()
        shapes = {'encode': video.shape, 'decode': latents.shape}
        for which in PASSES:
            one = partial(getattr(meta, which), torch.empty(1, *shapes[which][1:], device='meta'))
            results[name]['flop'][which] = args.batch * count_flop(meta, one)
            results[name]['bytes'][which] = peak_bytes(calls[name, which], args.device)
    rate_call, rate_flop = reference(args.device, dtype)
    print(f'{args.repeats} calls each:')
    named = {f'{name} {which}': call for (name, which), call in calls.items()}
    seconds = measure({**named, 'reference': rate_call}, args.repeats, args.device)
    for name, which in calls:
        results[name]['seconds'][which] = summary(seconds[f'{name} {which}'])
        if args.device == 'cpu' and name == NAMES[0]:
            results[name]['own_convolutions'][which] = convolutions_share(calls[name, which], args.repeats)
    return {
        'models': results,
        'reference_flop_per_second': rate_flop / statistics.median(seconds['reference']),
        'ratios': ratios(results),
    }


def count_memory(args: argparse.Namespace) -> str:
    """Count the peak bytes of both networks on meta tensors; return a table in GiB."""
    lines = ['| | weights | encode | decode | largest, weights included |', '|---|---|---|---|---|']
    totals = []
    for name in NAMES:
        with torch.device('meta'):
            model = build(name, args.size).to(getattr(torch, args.dtype)).eval()
            video = torch.empty(args.batch, 3, args.frames, args.side, args.side, dtype=getattr(torch, args.dtype))
            with torch.no_grad():
                latents = model.encode(video)
            peaks = [cost.peak_bytes(model, partial(model.encode, video))]
            peaks.append(cost.peak_bytes(model, partial(model.decode, latents)))
        weights = sum(p.nbytes for p in model.parameters())
        totals.append(weights + max(peaks))
        gib = ' | '.join(f'{count / 2**30:.2f}' for count in (weights, *peaks, totals[-1]))
        lines.append(f'| {name} | {gib} |')
    return '\n'.join([*lines, f"| ours / Wan's | | | | {totals[0] / totals[1]:.2f} |"])


def ratios(results: dict) -> dict:
    """Return the time of Wan relative to PredictiveVAE, per clip and per FLOP, and the inverse ratio of memory."""
    ours, wan = (results[name] for name in NAMES)
    found: dict[str, dict[str, float]] = {}
    time_of = {which: [model['seconds'][which]['median'] for model in (ours, wan)] for which in PASSES}
    time_of['both'] = [sum(times) for times in zip(*time_of.values(), strict=True)]
    for which, (mine, theirs) in time_of.items():
        passes = PASSES if which == 'both' else (which,)
        flop = sum(ours['flop'][p] for p in passes) / sum(wan['flop'][p] for p in passes)
        memory = [max(m['bytes'][p] for p in passes) + m['weight_bytes'] for m in (ours, wan)]
        found[which] = {
            'per clip': theirs / mine,
            'per FLOP': theirs / mine * flop,
            'memory': memory[0] / memory[1],
        }
    return found


def table(report: dict) -> str:
    """Return the results as a Markdown table."""
    lines = [
        '| | ms, median (min to max) | clips per second | GFLOP per clip | GFLOP/s | of the reference rate '
        "| own convolutions | peak MiB (weights) | Wan's time / ours, per clip | per FLOP | our peak / Wan's |",
        '|---|---|---|---|---|---|---|---|---|---|---|',
    ]
    for which in PASSES:
        for name in NAMES:
            model = report['models'][name]
            times, flop = model['seconds'][which], model['flop'][which]
            rate, own = flop / times['median'], model['own_convolutions'].get(which)
            weights = model['weight_bytes'] / 2**20
            quotients = _ratios(report, which) if name == NAMES[0] else '| |'
            lines.append(
                f'| {which}, {name} | {milliseconds(times)} | {report["batch"] / times["median"]:.2f} '
                f'| {flop / report["batch"] / 1e9:.1f} | {rate / 1e9:.0f} '
                f'| {rate / report["reference_flop_per_second"]:.0%} | {"" if own is None else f"{own:.0%}"} '
                f'| {model["bytes"][which] / 2**20 + weights:.0f} ({weights:.0f}) | {quotients} |'
            )
    lines.append(f'| both | | | | | | | | {_ratios(report, "both")} |')
    return '\n'.join(lines)


def _ratios(report: dict, which: str) -> str:
    found = report['ratios'][which]
    return f'{found["per clip"]:.2f}x | {found["per FLOP"]:.2f}x | {found["memory"]:.2f}'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--size', choices=list(SIZES), default='small', help='widths of both models (default: small)')
    parser.add_argument('--batch', type=int, help='clips (default: 2, with --size paper 1, on a GPU 4)')
    parser.add_argument('--frames', type=int, default=17, help='frames per clip, 1 + 4 k (default: 17)')
    parser.add_argument('--side', type=int, help='height and width in pixels (default: 64, on a GPU 256)')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16'], default='float32', help='default: float32')
    parser.add_argument('--repeats', type=int, default=15, help='timed calls per model and pass (default: 15)')
    parser.add_argument('--compile', action='store_true', help='use PredictiveVAE(compile=True)')
    parser.add_argument('--count-memory', action='store_true', help='only count the peak memory; no timing')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all results to this file')
    args = parser.parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    cuda = args.device == 'cuda'
    args.batch = args.batch if args.batch is not None else 4 if cuda else 1 if args.size == 'paper' else 2
    args.side = args.side if args.side is not None else 256 if cuda else 64
    check_arguments(parser, args, ('batch', 'frames', 'side', 'repeats'))
    check_clip(parser, args)
    if importlib.util.find_spec('diffusers') is None:
        parser.error('this benchmark needs diffusers for comparison: pip install -e ".[benchmarks]"')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.count_memory:
        print(f'GiB, counted, not measured; {args.batch} x {args.frames} x {args.side} x {args.side}, {args.dtype}\n')
        print(count_memory(args))
        return
    report = {
        'date': now(),
        'machine': machine(args.device),
        'versions': versions('torch', 'diffusers'),
        'command': ' '.join(['python tools/benchmarks/vae.py', *args.argv]),
        **{name: getattr(args, name) for name in ('device', 'size', 'batch', 'frames', 'side', 'dtype', 'compile')},
        **compare(args),
    }
    if args.json:
        write_json(args.json, report)
    names = ', '.join(f'{name} {version}' for name, version in report['versions'].items())
    parameters = ' and '.join(f'{report["models"][name]["parameters"] / 1e6:.1f} M' for name in NAMES)
    print(f'\n{report["date"]}, {report["machine"]}, {names}\n{report["command"]}')
    print(f'{parameters} parameters; {args.batch} x {args.frames} x {args.side} x {args.side}, {args.dtype}')
    print(f'reference rate: {report["reference_flop_per_second"] / 1e9:.0f} GFLOP/s\n\n{table(report)}')

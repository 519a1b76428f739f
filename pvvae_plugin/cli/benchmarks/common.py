"""Shared helpers of the benchmarks: timing, memory, machine description and argument checks."""

from __future__ import annotations

import argparse
import importlib.metadata
import signal
import statistics
import sys
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pvvae_plugin.config import read_config
from pvvae_plugin.devices import processor

# Arguments of PredictiveVAE: the paper's layout, small enough for a CPU.
SMALL_VAE = {
    'latent_channels': 16,
    'encoder_widths': (32, 64, 128, 128, 128),
    'decoder_widths': (48, 96, 192, 192, 192),
}


def measure(calls: Mapping[str, Callable[[], object]], repeats: int, device: str) -> dict[str, list[float]]:
    """Return the seconds per call, interleaved, after two warm-up rounds."""
    wait = torch.cuda.synchronize if device == 'cuda' else (lambda: None)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-2, repeats):
        for name, call in calls.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            seconds[name].append(time.perf_counter() - start)
        progress = 'warm-up' if turn < 0 else f'{turn + 1}/{repeats}'
        print(f'  {progress}', end='\r' if turn + 1 < repeats else '\n', flush=True)
    return {name: values[2:] for name, values in seconds.items()}


def summary(values: Sequence[float]) -> dict[str, float]:
    return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


def milliseconds(times: Mapping[str, float]) -> str:
    return '{median:.1f} ({min:.1f} to {max:.1f})'.format(**{key: 1e3 * value for key, value in times.items()})


def matrix_product(device: str, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """Return a large square matrix product and its number of operations."""
    side = 8192 if device == 'cuda' else 1024
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    return lambda: a @ b, 2 * side**3


def machine(device: str) -> str:
    if device == 'cuda':
        return torch.cuda.get_device_name()
    return f'{processor()}, {torch.get_num_threads()} thread(s)'


def now() -> str:
    return datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M UTC')


def versions(*names: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in names}


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Return the peak memory of a call beyond the memory in use before it.

    On a GPU this is the memory that torch allocates, including workspaces. On a CPU it counts the live tensors that
    operations return, without the temporary memory inside an operation.
    """
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with _LiveBytes() as live:
        call()
    return live.peak


def kept_bytes(call: Callable[[], object], model: nn.Module) -> int:
    """Return the bytes that autograd saves for the backward pass of a call, without the model's weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(kept.values())


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace, positive: Sequence[str]) -> None:
    """Exit with an error if a number is not positive, the GPU is missing, or ``--json`` is not writable."""
    for name in positive:
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be a positive integer, got {getattr(args, name)}')
    if getattr(args, 'device', 'cpu') == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no GPU; use --device cpu, or install torch with CUDA')
    if args.json is None:
        return
    if not args.json.parent.is_dir():
        parser.error(f'--json {args.json}: the folder {args.json.parent} does not exist')
    try:
        args.json.open('a').close()  # fail now, before the measurement, if it is not writable
    except OSError as error:
        parser.error(f'--json {args.json} cannot be written: {error.strerror}')


def check_config(parser: argparse.ArgumentParser, config: str) -> None:
    """Exit with an error if ``--config`` is neither a file nor the name of a config of this package."""
    try:
        read_config(config)
    except FileNotFoundError as error:
        parser.error(f'--config: {error}')


def benchmark_command(name: str) -> list[str]:
    """Return the command line that runs a benchmark in a separate process."""
    return [sys.executable, '-m', 'pvvae_plugin.cli.console', 'benchmark', name]


def end_in_order() -> None:
    """Turn SIGTERM into SystemExit, to stop child processes and remove temporary files."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def check_clip(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with an error if ``--frames`` or ``--side`` do not fit the compression ratios 4 and 16."""
    if args.frames % 4 != 1:
        parser.error(f'--frames must be 1 + 4 k, got {args.frames}')
    if args.side % 16:
        parser.error(f'--side must be divisible by 16, got {args.side}')


class _LiveBytes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        out = operation(*args, **(kwargs or {}))
        before = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        for leaf in tree_leaves(out):
            if not torch.is_tensor(leaf):
                continue
            storage = leaf.untyped_storage()
            if storage._cdata not in self._sizes and storage._cdata not in before:
                self._sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._sizes.pop, storage._cdata, None)
                self.peak = max(self.peak, sum(self._sizes.values()))
        return out

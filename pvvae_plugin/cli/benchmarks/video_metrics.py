"""Measure the cost of FVD and KVD relative to feature extraction, and compare their values with cd-fvd.

    pvvae benchmark video-metrics
    python tools/benchmarks/video_metrics.py                 # both tables
    python tools/benchmarks/video_metrics.py --device cuda

The first table times I3D with random weights on clips of 17 x 64 x 64, and the metrics' arithmetic for 2,048 clips
per set, interleaved in one process. The second table compares the values of this package and cd-fvd on the same
random features. It needs cd-fvd: pip install --no-deps cd-fvd && pip install scipy requests tqdm.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.evaluation import resolve_protocol
from pvvae_plugin.evaluation.extractors import I3D
from pvvae_plugin.evaluation.fvd import groups_of
from pvvae_plugin.evaluation.video_features import VideoFeatures
from pvvae_plugin.functional.frechet import frechet_distance, frechet_without_groups
from pvvae_plugin.functional.jackknife import NUM_GROUPS, group_of
from pvvae_plugin.functional.kernel_distance import kernel_sums
from pvvae_plugin.functional.moments import merge_all, moments

CLIPS, DIM = 2048, 400


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--repeats', type=int, default=5, help='repeats per measurement (default: 5)')
    parser.add_argument('--batch-size', type=int, default=2, help='clips per batch of I3D (default: 2)')
    args = parser.parse_args(argv)
    for name in ('repeats', 'batch_size'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be a positive integer, got {getattr(args, name)}')
    return args


def drawn(num: int, seed: int, mean: float = 0.0, dim: int = DIM) -> Tensor:
    """Draw float32 features with variances 1, 1/2, 1/3, ... along random directions."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)).double())[0]
    scales = 1 / torch.arange(1, dim + 1).double().sqrt()
    return (torch.randn(num, dim, generator=generator).double() * scales @ basis + mean).float()


def timed(work: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    work()
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def cost_table(args: argparse.Namespace) -> None:
    features = VideoFeatures(I3D(None).eval(), resolve_protocol('paper'))
    features._device = args.device
    features.extractor.to(args.device)
    clips = [
        torch.rand(3, 17, 64, 64, generator=torch.Generator().manual_seed(i)) * 2 - 1 for i in range(args.batch_size)
    ]
    made, real = drawn(CLIPS, 1), drawn(CLIPS, 2)
    made_groups, real_groups = groups_of(made), groups_of(real)
    group = group_of(torch.arange(CLIPS))
    works = {
        'I3D': lambda: features.of_clips(clips),
        'FVD': lambda: frechet_distance(merge_all(groups_of(made)), merge_all(groups_of(real))),
        'FVD, interval': lambda: frechet_without_groups(made_groups, real_groups),
        'KVD, with interval': lambda: kernel_sums(made, real, group, group, NUM_GROUPS),
    }
    for work in works.values():
        work()  # warm up
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(args.repeats):
        for name, work in works.items():
            times[name].append(timed(work, args.device))
    median = {name: statistics.median(values) for name, values in times.items()}
    extraction = median['I3D'] / args.batch_size * CLIPS
    print(f'\n{CLIPS} clips per set, {DIM} features, seconds: median (min to max) of {args.repeats}')
    print('| | seconds | share of feature extraction for 2,048 clips |\n|---|---|---|')
    print(f'| I3D, one 17-frame clip | {median["I3D"] / args.batch_size:.3f} | |')
    print(f'| I3D, 2,048 clips (the above x 2,048) | {extraction:.0f} | |')
    for name in list(works)[1:]:
        spread = f'{min(times[name]):.2f} to {max(times[name]):.2f}'
        print(f'| {name} | {median[name]:.2f} ({spread}) | {100 * median[name] / extraction:.3f} % |')


def exact(x: Tensor, y: Tensor, ddof: int) -> float:
    """Compute the distance without covariances, from the nuclear norm of the product of centered samples."""
    x, y = x.double(), y.double()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    x, y = ((rows - rows.mean(0)) / (len(rows) - ddof) ** 0.5 for rows in (x, y))
    overlap = torch.linalg.svdvals(x @ y.T).sum()
    return (shift + x.square().sum() + y.square().sum() - 2 * overlap).item()


def arithmetic_table() -> None:
    try:
        import scipy.linalg
        from cdfvd.third_party.i3d.utils import frechet_distance as cdfvd_i3d_utils
        from cdfvd.utils.metric_utils import FeatureStats
    except ImportError as error:
        print(f'\nskipped the comparison: cd-fvd is not installed ({error}); see --help')
        return

    def of_class(x: Tensor, y: Tensor) -> float:
        """Repeat cdfvd.compute_fvd_from_stats, whose module needs torchvision and timm."""
        stats = []
        for features in (x, y):
            stats.append(FeatureStats(capture_mean_cov=True))
            for batch in features.split(16):
                stats[-1].append(batch.numpy())
        (mu_x, cov_x), (mu_y, cov_y) = (s.get_mean_cov() for s in stats)
        root = scipy.linalg.sqrtm(cov_y @ cov_x)
        return float((((mu_x - mu_y) ** 2).sum() + (cov_x + cov_y - 2 * root).trace()).real)

    same = drawn(2048, 3)
    cases = {
        '2,048 and 2,048, moved by 0.05': (drawn(2048, 1), drawn(2048, 2, mean=0.05)),
        '256 and 256: fewer than features': (drawn(256, 1), drawn(256, 2)),
        'a set and itself': (same, same),
        'a set and itself, 256': (same[:256], same[:256]),
        'all features 100 higher': (drawn(2048, 1, mean=100.0), drawn(2048, 2, mean=100.0)),
    }
    columns = {
        'exact, / N': lambda x, y: exact(x, y, 0),
        'ours, / N': lambda x, y: frechet_distance(moments(x), moments(y), 0).item(),
        'cdfvd class': of_class,
        'exact, / (N - 1)': lambda x, y: exact(x, y, 1),
        'ours, / (N - 1)': lambda x, y: frechet_distance(moments(x), moments(y), 1).item(),
        'cdfvd i3d.utils': lambda x, y: cdfvd_i3d_utils(x, y).item(),
    }
    print(f'\n{DIM} features, variances 1, 1/2, 1/3, ...')
    print(f'| sets | {" | ".join(columns)} |\n|---|{"---|" * len(columns)}')
    for name, sets in cases.items():
        values = []
        for work in columns.values():
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                values.append(work(*sets))
        print(f'| {name} | {" | ".join(f"{value:.6g}" for value in values)} |')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    name = torch.cuda.get_device_name() if args.device != 'cpu' else f'CPU, {torch.get_num_threads()} threads'
    print(f'torch {torch.__version__}, {name}, {platform.machine()}')
    cost_table(args)
    arithmetic_table()

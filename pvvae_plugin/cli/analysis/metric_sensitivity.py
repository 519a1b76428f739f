"""Measure how a distance between sets of videos reacts to increasing damage of real clips.

    pvvae metric-sensitivity VIDEOS --out FILE.json
    python tools/analysis/metric_sensitivity.py VIDEOS [VIDEOS ...] --out FILE.json --picture FILE.png
    python tools/analysis/metric_sensitivity.py VIDEOS --metrics proxy fvd --weights weights/i3d_torchscript.pt

The videos in the folders VIDEOS are split into two halves, A and B. Clips of A stay unchanged; clips of B are blurred,
made noisy, shuffled in time, frozen or made to flicker. The distance from A to B is measured at each strength. At
strength 0 it is not 0, because A and B are different, finite sets. A distance that grows with the strength detects
that kind of damage; compare it with the value at strength 0. Videos with little motion hide temporal damage, so the
numbers depend on these clips as well as on the distance.

Clips are center crops of --size x --size pixels; each video gives --clips-per-video evenly spaced clips without
overlap. Random draws depend on --seed and are the same for all strengths of a damage.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import torch
from mmengine.registry import init_default_scope
from torch import Tensor

from pvvae_plugin import __version__
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.datasets import ClipError, read_clip
from pvvae_plugin.datasets.readers.base import is_video
from pvvae_plugin.evaluation import resolve_protocol
from pvvae_plugin.evaluation.video_features import VideoFeatures, shared_features
from pvvae_plugin.files import write_json
from pvvae_plugin.functional import video_damage
from pvvae_plugin.functional.clip_resize import resize_clip
from pvvae_plugin.functional.frechet import frechet_distance
from pvvae_plugin.functional.keyed_random import derive_key, torch_rng
from pvvae_plugin.functional.moments import moments

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)


class Damage(NamedTuple):
    """Kind of damage: function, strengths, format of a strength, and whether it is temporal."""

    apply: Callable[[Tensor, float, torch.Generator], Tensor]
    strengths: tuple[float, ...]
    written: str
    of_time: bool


DAMAGES = {
    'blur': Damage(video_damage.gaussian_blur, (1, 2, 4), 'sigma {:g} px', False),
    'noise': Damage(video_damage.add_noise, (8, 16, 32), 'sigma {:g} of 255', False),
    'shuffled frames': Damage(video_damage.shuffle_frames, (0.25, 0.5, 1), '{:.0%}', True),
    'frozen end': Damage(video_damage.freeze_end, (0.25, 0.5, 0.75), '{:.0%}', True),
    'flicker': Damage(video_damage.flicker, (0.05, 0.1, 0.2), '{:.0%}', True),
}
METRICS = {
    'proxy': {'proxy_appearance': {'type': 'EfficientNetLite0'}, 'proxy_time': {'type': 'TransNetV2'}},
    'fvd': {'FVD': {'type': 'I3DTorchScript', 'weights': 'weights/i3d_torchscript.pt'}},
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        'videos', nargs='+', type=Path, metavar='VIDEOS', help='folders of videos, searched recursively'
    )
    parser.add_argument('--metrics', nargs='+', choices=list(METRICS), default=['proxy'], help='default: proxy')
    parser.add_argument('--weights', metavar='PATH', help='weights for FVD (default: weights/i3d_torchscript.pt)')
    parser.add_argument('--num-frames', type=int, default=17, metavar='T', help='frames per clip (default: 17)')
    parser.add_argument('--num-samples', type=int, metavar='N', help='maximum clips in A and in B (default: all)')
    parser.add_argument(
        '--clips-per-video', type=int, default=2, metavar='N', help='maximum clips per video (default: 2)'
    )
    parser.add_argument('--size', type=int, default=128, help='height and width of a clip in pixels (default: 128)')
    parser.add_argument('--batch-size', type=int, default=8, help='clips per batch (default: 8)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the split and of the damage (default: 0)')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write all distances to this file')
    parser.add_argument('--picture', type=Path, metavar='FILE.png', help='plot the curves to this file')
    args = parser.parse_args(argv)
    for name, least in (('num_frames', 2), ('num_samples', 2), ('clips_per_video', 1), ('size', 1), ('batch_size', 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, got {value}')
    for name, suffix in (('out', '.json'), ('picture', '.png')):
        path = getattr(args, name)
        if path and path.suffix != suffix:
            parser.error(f'--{name} must end in {suffix}, got {path}')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    init_default_scope('pvvae_plugin')
    extractors = build_extractors(args)
    halves, counts = read_halves(args)
    distances = measure(extractors, *halves, args)
    for line in table(distances, counts, args):
        print(line)
    if args.out:
        write(args, extractors, distances, counts)
    if args.picture:
        draw(distances, counts, args.picture)


def build_extractors(args: argparse.Namespace) -> dict[str, VideoFeatures]:
    """Build the feature networks, by the names of their distances."""
    protocol = resolve_protocol({'base': 'paper', 'num_frames': args.num_frames})
    configs = {name: dict(config) for metric in dict.fromkeys(args.metrics) for name, config in METRICS[metric].items()}
    if args.weights:
        if 'FVD' not in configs:
            raise ValueError('--weights applies to FVD only; add --metrics fvd')
        configs['FVD']['weights'] = args.weights
    return {name: shared_features(config, protocol) for name, config in configs.items()}


def read_halves(args: argparse.Namespace) -> tuple[tuple[list[Tensor], list[Tensor]], dict[str, Any]]:
    """Return the clips of A and of B, uint8 ``(3, T, H, W)``, and the numbers of clips and videos."""
    absent = [str(folder) for folder in args.videos if not folder.is_dir()]
    if absent:
        raise FileNotFoundError(f'no folder {", ".join(absent)}')
    files = sorted({path for folder in args.videos for path in folder.rglob('*') if is_video(path.name)})
    random.Random(derive_key(args.seed, 'halves')).shuffle(files)
    left_out: list[str] = []
    halves, num_videos = [], []
    for half in (files[0::2], files[1::2]):
        clips: list[Tensor] = []
        used = 0
        for path in half:
            if args.num_samples and len(clips) >= args.num_samples:
                break
            try:
                found = read_clips(path, args)
            except ClipError as error:
                left_out.append(str(error))
                continue
            clips += found
            used += 1
        halves.append(clips[: args.num_samples])
        num_videos.append(used)
    for reason in left_out:
        print(f'skipped: {reason}', file=sys.stderr)
    if min(map(len, halves)) < 2:
        raise ValueError(
            f'{len(files)} videos give {len(halves[0])} and {len(halves[1])} clips of {args.num_frames} frames; each '
            'half needs at least 2'
        )
    counts = {'clips': list(map(len, halves)), 'videos': num_videos, 'left_out': len(left_out)}
    return (halves[0], halves[1]), counts


def read_clips(path: Path, args: argparse.Namespace) -> list[Tensor]:
    """Read clips of a video, each from the middle of an equal part of it.

    Raises:
        ClipError: If the video cannot be read or is shorter than one clip.
    """

    def frames_of(total: int) -> list[int]:
        num = min(args.clips_per_video, total // args.num_frames)
        if not num:
            raise ClipError(str(path), f'it has {total} frames, a clip needs {args.num_frames}')
        part = total // num
        return [i * part + (part - args.num_frames) // 2 + t for i in range(num) for t in range(args.num_frames)]

    frames = torch.from_numpy(read_clip(str(path), frames_of)[0])  # (num * T, H, W, 3)
    video = frames.permute(3, 0, 1, 2).unsqueeze(0).float()
    video = resize_clip(video, args.size, 'short-side-crop')[0].round().to(torch.uint8)
    return list(video.split(args.num_frames, dim=1))


def damaged_batches(clips: Sequence[Tensor], name: str, strength: float, args: argparse.Namespace) -> Iterator[list]:
    """Yield batches of damaged clips in [-1, 1]."""
    for start in range(0, len(clips), args.batch_size):
        batch = []
        for i, clip in enumerate(clips[start : start + args.batch_size], start):
            video = clip.float() / 127.5 - 1
            if strength:
                video = DAMAGES[name].apply(video, strength, torch_rng(args.seed, name, i))
            batch.append(video)
        yield batch


def measure(
    extractors: dict[str, VideoFeatures], a: Sequence[Tensor], b: Sequence[Tensor], args: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Return distances as ``[distance][damage][step]``; step 0 has no damage."""

    def moments_of(clips: Sequence[Tensor], name: str = '', strength: float = 0) -> dict[str, Any]:
        features: dict[str, list[Tensor]] = {key: [] for key in extractors}
        for batch in damaged_batches(clips, name, strength, args):
            for key, extractor in extractors.items():
                features[key].append(extractor.of_clips(batch))
        return {key: moments(torch.cat(parts)) for key, parts in features.items()}

    def distances_to_a(of_b: dict[str, Any]) -> dict[str, float]:
        return {key: frechet_distance(of_b[key], of_a[key]).item() for key in extractors}

    start = time.time()
    of_a = moments_of(a)
    undamaged = distances_to_a(moments_of(b))
    distances: dict[str, dict[str, list[float]]] = {key: {} for key in extractors}
    for name, damage in DAMAGES.items():
        for key in extractors:
            distances[key][name] = [undamaged[key]]
        for strength in damage.strengths:
            for key, value in distances_to_a(moments_of(b, name, strength)).items():
                distances[key][name].append(value)
        print(f'{name}: {time.time() - start:.0f} s', file=sys.stderr)
    return distances


def grows(values: Sequence[float]) -> bool:
    """Return whether each value is larger than the previous one."""
    return all(low < high for low, high in zip(values, values[1:], strict=False))


def table(distances: dict[str, Any], counts: dict[str, Any], args: argparse.Namespace) -> Iterator[str]:
    """Yield a Markdown table per distance, with the ratio to no damage in parentheses."""
    yield (
        f'{counts["clips"][0]} clips of {counts["videos"][0]} videos (A) against {counts["clips"][1]} of '
        f'{counts["videos"][1]} others (B, damaged); {args.num_frames} frames of {args.size} x {args.size}'
    )
    for key, rows in distances.items():
        yield f'\n{key}\n'
        yield '| damage | none | weak | medium | strong | grows with each step |\n|---|---|---|---|---|---|'
        for name, (none, *values) in rows.items():
            steps = [
                f'{DAMAGES[name].written.format(strength)}: {value:.4g} ({value / none:.2f})'
                for strength, value in zip(DAMAGES[name].strengths, values, strict=True)
            ]
            yield f'| {name} | {none:.4g} | {" | ".join(steps)} | {"yes" if grows(rows[name]) else "no"} |'


def write(args: argparse.Namespace, extractors: dict[str, Any], distances: dict[str, Any], counts: dict) -> None:
    """Write all numbers and settings to ``--out``."""
    options = {name: getattr(args, name) for name in ('num_frames', 'size', 'clips_per_video', 'num_samples', 'seed')}
    content = {
        'distances': distances,
        'strengths': {name: [0, *damage.strengths] for name, damage in DAMAGES.items()},
        **counts,
        **options,
        'folders': [str(folder) for folder in args.videos],
        'extractors': {key: features.record() for key, features in extractors.items()},
        'pvvae_plugin': __version__,
        'torch': torch.__version__,
    }
    write_json(args.out, content)
    print(f'written: {args.out}')


def draw(distances: dict[str, Any], counts: dict[str, Any], path: Path) -> None:
    """Plot the ratio to no damage, one panel per distance."""
    figure, axes = plt.subplots(1, len(distances), figsize=(4.6 * len(distances), 3.4), squeeze=False)
    for axis, (key, rows) in zip(axes[0], distances.items(), strict=True):
        for name, values in rows.items():
            style = 'o-' if DAMAGES[name].of_time else 's--'
            axis.plot(range(len(values)), [value / values[0] for value in values], style, label=name, markersize=4)
        axis.set_xticks(range(4), ['none', 'weak', 'medium', 'strong'])
        axis.set_yscale('log', base=2)
        axis.yaxis.set_major_formatter('{x:g}')
        axis.set_title(f'{key}, {counts["clips"][1]} clips', fontsize=10)
        axis.set_ylabel('distance / that without damage')
        axis.grid(alpha=0.3, which='both')
        axis.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)
    print(f'written: {path}')

"""Plot the latents of clips and measure their distance in time and their correlation with motion.

    pvvae latents pvvae_demo work_dirs/pvvae_demo --videos CLIPS --out work_dirs/latents
    python tools/analysis/latents.py pvvae_demo work_dirs/pvvae_demo --videos CLIPS --num-frames 9 --size 32 32 \
        --out work_dirs/latents
    python tools/analysis/latents.py FOLDER_OF_A_VAE --videos a.mp4 b.mp4 --out work_dirs/latents

The first --num-frames frames of each file form one clip. Files written to --out: pca_NAME.png for the first clips
(frames, principal components of the latents, optical flow), ltd.png (Latent Temporal Distance), ltd.json (all numbers).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from mmengine.registry import init_default_scope
from torch import Tensor

from pvvae_plugin import __version__
from pvvae_plugin.apis import VideoAutoencoderInferencer
from pvvae_plugin.apis.video_input import check_lengths, check_size, find_videos, read_video
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.evaluation import latent_analysis as analysis
from pvvae_plugin.files import file_sha256, write_json
from pvvae_plugin.models.checkpoints import OWN_WEIGHTS, resolve_checkpoint

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('model', help='folder of an exported VAE, or path or name of a config')
    parser.add_argument('checkpoint', nargs='?', help=f'with a config: checkpoint, work directory, or {OWN_WEIGHTS}')
    parser.add_argument(
        '--videos', nargs='+', required=True, metavar='PATH', help='videos, .npy arrays, or folders with such files'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for pictures and numbers')
    parser.add_argument(
        '--num-clips',
        type=int,
        metavar='N',
        help='maximum number of clips, evenly spaced over the files (default: all)',
    )
    parser.add_argument(
        '--num-frames', type=int, default=17, metavar='T', help='frames per clip, 1 + k * p_t (default: 17)'
    )
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), help="frame size (default: the file's)")
    parser.add_argument('--num-pictures', type=int, default=4, metavar='N', help='clips to draw (default: 4)')
    args = parser.parse_args(argv)
    for name, least in (('num_clips', 1), ('num_frames', 2), ('num_pictures', 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, got {value}')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    init_default_scope('pvvae_plugin')
    files = find_videos(args.videos, args.num_clips)
    if args.size:
        check_size(args.size)
    vae = VideoAutoencoderInferencer(args.model, args.checkpoint).vae
    check_lengths(files, args.num_frames, vae.temporal_ratio)
    args.out.mkdir(parents=True, exist_ok=True)
    source = source_of(args, vae)
    names = picture_names(files[: args.num_pictures])
    clips = []
    for i, file in enumerate(files):
        clip = analysis.encode_clip(vae, read_video(file, args.size, args.num_frames)[0], frozen=True)
        if i < len(names):
            analysis.write_strip(args.out / names[i], clip, vae.spatial_ratio)
        clips.append(analysis.measure_change(clip, vae.spatial_ratio))
    record, steps = analysis.summarize(clips)
    content = {
        **record,
        'model': source,
        'files': list(map(str, files)),
        'pictures': names,
        'arguments': {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        'pvvae_plugin': __version__,
        'torch': torch.__version__,
    }
    write_json(args.out / 'ltd.json', content)
    draw_distances(record['latent_temporal_distance'], steps, args.out / 'ltd.png')
    for line in report(record, len(clips)):
        print(line)
    print(f'written: {args.out}: {", ".join([*names, "ltd.png", "ltd.json"])}')


def source_of(args: argparse.Namespace, vae: Any) -> dict[str, str | None]:
    """Return the path and SHA-256 of the weights."""
    if args.checkpoint in (None, OWN_WEIGHTS):
        return vae.source or {'path': args.model, 'sha256': None}
    path = resolve_checkpoint(args.checkpoint)
    return {'path': path, 'sha256': file_sha256(path)}


def picture_names(files: Sequence[Path]) -> list[str]:
    """Return ``pca_NAME.png`` for each file; repeated names get numbers."""
    names: list[str] = []
    for file in files:
        name, number = f'pca_{file.stem}.png', 2
        while name in names:
            name, number = f'pca_{file.stem}_{number}.png', number + 1
        names.append(name)
    return names


def report(record: dict[str, Any], num_clips: int) -> list[str]:
    """Return the lines of the summary."""
    distances, correlation = record['latent_temporal_distance'], record['correlation']
    lines = [f'{num_clips} clips; latents normalized by the statistics of their channels over these clips']
    frozen = distances['of_frozen_clips']['mean']
    for i, *values in zip(distances['interval'], distances['mean'], distances['std_over_clips'], frozen, strict=True):
        mean, std, still = values
        lines.append(f'  interval {i:<3}{mean:8.3f}  (deviation over clips {std:.3f}; frozen at frame 0 {still:.3f})')
    lines.append(f'  unrelated   {distances["unrelated_latents"]:7.3f}')
    latents, pixels, *pairs = (
        '-' if value is None else f'{value:.3f}'
        for value in (correlation['value'], correlation['of_pixels'], *correlation['per_pair'])
    )
    lines.append(f'rank correlation of motion with change of latents {latents}, of pixels {pixels}')
    lines.append(f'  for each pair of neighboring latent frames: {", ".join(pairs)}')
    return lines


def draw_distances(distances: dict[str, Any], steps: Tensor, path: Path) -> None:
    """Plot the distance against the interval, and the distribution of distances at interval 1."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    x, mean, std = distances['interval'], torch.tensor(distances['mean']), torch.tensor(distances['std_over_clips'])
    curves = distances['per_clip']
    for i, curve in enumerate(curves[:50]):
        left.plot(x, curve, color='0.75', linewidth=0.7, label='single clips' if i == 0 else None)
    left.fill_between(x, mean - std, mean + std, alpha=0.25, label='deviation over clips')
    left.plot(x, mean, 'o-', label=f'mean of {len(curves)} clips')
    left.plot(x, distances['of_frozen_clips']['mean'], 'k--', linewidth=1, label='frozen at the first frame')
    left.set_xticks(x[:: -(-len(x) // 12)])
    left.set_ylim(bottom=0)
    left.set_xlabel('interval (latent frames)')
    left.set_ylabel('L2 distance of normalized latents')
    if unrelated := distances['unrelated_latents']:
        share = left.secondary_yaxis('right', functions=(lambda y: y / unrelated, lambda y: y * unrelated))
        share.set_ylabel('of that of unrelated latents')
    left.legend(fontsize=8, loc='lower right')
    left.set_title('Latent Temporal Distance', fontsize=10)
    right.hist(steps.numpy(), bins=50)
    right.axvline(mean[0], color='C1', label=f'mean {mean[0]:.2f}')
    right.set_xlim(left=0)
    right.set_xlabel('L2 distance at interval 1, each place and pair of frames')
    right.set_ylabel('count')
    right.legend(fontsize=8)
    right.set_title('Neighboring latent frames', fontsize=10)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)

"""Measure how well linear probes read motion from a VAE's latents, and how the latents change over time.

    pvvae probe-latents pvvae_demo work_dirs/pvvae_demo --out work_dirs/probes
    python tools/analysis/probe_latents.py configs/pvvae_demo.py work_dirs/quickstart --out work_dirs/probes

Probes are fitted on training clips of the config and evaluated on its validation clips. A whole latent frame predicts
the velocity of procedural shapes; a single latent cell predicts its optical flow (OpenCV's DIS). Each is measured for
the group of the latent frame (now) and for the next group, which the latent frame has not seen (next). Files written to
--out: probes.json (with the metrics of tools/analysis/latents.py, too) and pca_N.png for the first validation clips.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.registry import init_default_scope
from torch import Tensor
from torch.utils.data import Dataset

from pvvae_plugin import __version__
from pvvae_plugin.apis import VideoAutoencoderInferencer
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.datasets import ClipIndex, SyntheticVideoDataset
from pvvae_plugin.datasets.transforms.base import without_transforms
from pvvae_plugin.evaluation import latent_analysis as analysis
from pvvae_plugin.evaluation.substitutes import readable_clips
from pvvae_plugin.files import file_sha256, write_json
from pvvae_plugin.functional.keyed_random import derive_key
from pvvae_plugin.functional.linear_probe import explained_variance, fit_probe
from pvvae_plugin.functional.optical_flow import cell_means
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.progress import ProgressBar
from pvvae_plugin.registry import DATASETS

# A reversed or shortened clip does not have the motion that the dataset reports for it.
REMOVED = ('FutureDropSampler', 'RandomTimeReverse', 'RandomFlipClip')
APART = 8  # every 8th training clip is used to select the penalty
LEAST_CLIPS = 2 * APART


class Rows(NamedTuple):
    """Features and targets of clips, by name of the probe."""

    features: dict[str, Tensor]
    targets: dict[str, Tensor]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config of the VAE')
    parser.add_argument('checkpoint', help='checkpoint of the VAE, or work directory of its run')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for numbers and pictures')
    parser.add_argument('--num-clips', type=int, default=2048, metavar='N', help='training clips (default: 2048)')
    parser.add_argument(
        '--num-held-out', type=int, default=256, metavar='N', help='maximum number of validation clips (default: 256)'
    )
    parser.add_argument('--num-pictures', type=int, default=4, metavar='N', help='clips to draw (default: 4)')
    add_override_argument(parser)
    args = parser.parse_args(argv)
    for name, least in (('num_clips', LEAST_CLIPS), ('num_held_out', 2), ('num_pictures', 0)):
        if getattr(args, name) < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, got {getattr(args, name)}')
    return args


def encoded(vae: Any, dataset: Dataset, num: int, fresh: bool) -> Iterator[tuple[int, analysis.ClipLatents]]:
    """Yield the encoded clips of a dataset, with their indices. Replacements of unreadable clips are skipped.

    Args:
        vae: The VAE.
        dataset: Dataset of clips.
        num: Number of clips. If the dataset has fewer, ``fresh`` draws more clips from the same videos.
        fresh: Draw clips as in training, a different one each time. If False, also encode each clip frozen, to
            separate motion from other changes.
    """
    count = num if fresh else min(num, len(dataset))
    if fresh:
        indices = [ClipIndex(i % len(dataset), derive_key('probe', i)) for i in range(count)]
    else:
        indices = [i * len(dataset) // count for i in range(count)]
    bar = ProgressBar(count, file=sys.stderr)
    for index, sample in readable_clips('training clips' if fresh else 'held-out clips', dataset, indices):
        video = sample['inputs'].float()[None] / 127.5 - 1
        if video.shape[2] <= 2 * vae.temporal_ratio:
            raise ValueError(
                f'probes need clips of at least {1 + 2 * vae.temporal_ratio} frames (3 groups), got {video.shape[2]}'
            )
        yield int(index), analysis.encode_clip(vae, video, frozen=not fresh)
        bar.update()
    print(file=sys.stderr)


def rows_of(index: int, clip: analysis.ClipLatents, dataset: Dataset, temporal_ratio: int, spatial_ratio: int) -> Rows:
    """Return the rows of a clip for each probe, from latent frame 1 on: frame 0 has seen no motion."""
    latents = clip.latents.double()  # (C, t, h, w)
    frames = latents[:, 1:].transpose(0, 1).flatten(1)  # (t - 1, C h w)
    cells = latents[:, 1:].permute(1, 2, 3, 0)  # (t - 1, h, w, C)
    flow = torch.stack(
        [cell_means(torch.from_numpy(clip.flows[..., axis]).double(), spatial_ratio) for axis in (0, 1)], dim=-1
    )  # (t - 1, h, w, 2), pixels from the last frame of a group to that of the next
    features = {'flow_now': cells.flatten(0, 2), 'flow_next': cells[:-1].flatten(0, 2)}
    targets = {'flow_now': flow.flatten(0, 2), 'flow_next': flow[1:].flatten(0, 2)}
    if isinstance(dataset, SyntheticVideoDataset):
        places = torch.from_numpy(dataset.positions(index))[:, ::temporal_ratio].mean(dim=0)  # (t, 2)
        velocity = places.diff(dim=0) / temporal_ratio  # frame sides per frame, mean over shapes
        features |= {'velocity_now': frames, 'velocity_next': frames[:-1]}
        targets |= {'velocity_now': velocity, 'velocity_next': velocity[1:]}
    return Rows(features, targets)


def joined(rows: Sequence[Rows], name: str) -> tuple[Tensor, Tensor]:
    """Concatenate a probe's features and targets over clips."""
    return torch.cat([row.features[name] for row in rows]), torch.cat([row.targets[name] for row in rows])


def probe(fitted_on: Sequence[Rows], judged_on: Sequence[Rows], name: str) -> dict[str, Any]:
    """Fit and evaluate one probe."""
    apart = [row for i, row in enumerate(fitted_on) if i % APART == 0]
    rest = [row for i, row in enumerate(fitted_on) if i % APART]
    found = fit_probe(*joined(rest, name), joined(apart, name))
    features, targets = joined(judged_on, name)
    predictions = found(features)
    explained = explained_variance(predictions, targets)
    average = joined(rest, name)[1].mean(dim=0)
    return {
        'explained_variance': None if math.isnan(explained) else explained,
        'endpoint_error': (predictions - targets).norm(dim=-1).mean().item(),
        'endpoint_error_of_mean': (average - targets).norm(dim=-1).mean().item(),
        'penalty': found.penalty,
        'num_features': features.shape[1],
        'num_fitted': len(joined(rest, name)[0]),
        'num_judged': len(features),
    }


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    checkpoint = resolve_checkpoint(args.checkpoint)
    configs = [without_transforms(cfg[f'{split}_dataloader'].dataset, REMOVED) for split in ('train', 'val')]
    train, held_out = map(DATASETS.build, configs)
    vae = VideoAutoencoderInferencer(cfg, args.checkpoint).vae
    ratios = vae.temporal_ratio, vae.spatial_ratio
    args.out.mkdir(parents=True, exist_ok=True)
    judged_on, changes = [], []
    for number, (index, clip) in enumerate(encoded(vae, held_out, args.num_held_out, fresh=False)):
        if number < args.num_pictures:
            analysis.write_strip(args.out / f'pca_{number}.png', clip, vae.spatial_ratio)
        judged_on.append(rows_of(index, clip, held_out, *ratios))
        changes.append(analysis.measure_change(clip, vae.spatial_ratio))
    clips = encoded(vae, train, args.num_clips, fresh=True)
    fitted_on = [rows_of(index, clip, train, *ratios) for index, clip in clips]
    probes = {name: probe(fitted_on, judged_on, name) for name in judged_on[0].features}
    record, _ = analysis.summarize(changes)
    content = {
        'probes': probes,
        **record,
        'checkpoint': checkpoint,
        'checkpoint_sha256': file_sha256(checkpoint),
        'config': args.config,
        'overrides': {name: str(value) for name, value in (args.cfg_options or {}).items()},
        'train_data': configs[0],
        'held_out_data': configs[1],
        'num_clips': len(fitted_on),
        'num_held_out': len(judged_on),
        'pvvae_plugin': __version__,
        'torch': torch.__version__,
    }
    write_json(args.out / 'probes.json', content)
    print(f'{len(judged_on)} held-out clips, probes fitted on {len(fitted_on)} clips; explained variance:')
    for name, found in probes.items():
        explained = found['explained_variance']
        print(f'  {name:<14} {"-" if explained is None else f"{explained:.3f}"}')
    print(f'written: {args.out}/probes.json')

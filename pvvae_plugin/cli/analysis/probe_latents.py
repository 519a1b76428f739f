"""What of a clip's motion can be read out of a VAE's latents by a linear map, and how they change in time.

    pvvae probe-latents pvvae_demo work_dirs/pvvae_demo --out work_dirs/probes
    python tools/analysis/probe_latents.py configs/pvvae_demo.py work_dirs/quickstart --out work_dirs/probes

Maps are fitted on training clips of the config and judged on its validation clips. From a whole latent frame the
velocity of procedural shapes is read, from one latent cell the optical flow in it (OpenCV's DIS); each while its group
lasts (now) and in the group after it, which the latent frame has not seen (next). Into --out go probes.json, which also
holds what tools/analysis/latents.py measures on the validation clips, and pca_N.png of the first of them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar
from torch import Tensor
from torch.utils.data import Dataset

from pvvae_plugin import __version__
from pvvae_plugin.apis import VideoAutoencoderInferencer
from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.datasets import ClipError, ClipIndex, SyntheticVideoDataset
from pvvae_plugin.datasets.transforms.base import without_transforms
from pvvae_plugin.evaluation import latent_analysis as analysis
from pvvae_plugin.files import file_sha256, write_atomically
from pvvae_plugin.functional.keyed_random import derive_key
from pvvae_plugin.functional.linear_probe import explained_variance, fit_probe
from pvvae_plugin.functional.optical_flow import cell_means
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.registry import DATASETS

# A clip played backwards, or cut short, has another motion than the one that is known of it.
REMOVED = ('FutureDropSampler', 'RandomTimeReverse', 'RandomFlipClip')
APART = 8  # every so many-th training clip chooses the penalty
LEAST_CLIPS = 2 * APART


class Rows(NamedTuple):
    """Features and targets of probes, by the probe's name, of some clips."""

    features: dict[str, Tensor]
    targets: dict[str, Tensor]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the VAE')
    parser.add_argument('checkpoint', help='its checkpoint, or the work directory of its run')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='where numbers and pictures go')
    parser.add_argument('--num-clips', type=int, default=2048, metavar='N', help='to fit on (default: 2048)')
    parser.add_argument(
        '--num-held-out', type=int, default=256, metavar='N', help='to judge by, at most (default: 256)'
    )
    parser.add_argument('--num-pictures', type=int, default=4, metavar='N', help='clips that are drawn (default: 4)')
    add_override_argument(parser)
    args = parser.parse_args(argv)
    for name, least in (('num_clips', LEAST_CLIPS), ('num_held_out', 2), ('num_pictures', 0)):
        if getattr(args, name) < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, got {getattr(args, name)}')
    return args


def encoded(vae: Any, dataset: Dataset, num: int, fresh: bool) -> Iterator[tuple[int, analysis.ClipLatents]]:
    """Clips of a data set, encoded, with their indices.

    Args:
        vae: The VAE.
        dataset: Of clips.
        num: How many. Where there are fewer, ``fresh`` draws further clips of the same videos.
        fresh: Whether clips are drawn as in training, each time another of its video; if not, they are encoded frozen,
            too, which tells what of their change is motion.
    """
    count = num if fresh else min(num, len(dataset))
    bar = ProgressBar(count, file=sys.stderr)
    for i in range(count):
        index = i % len(dataset) if fresh else i * len(dataset) // count
        sample = dataset[ClipIndex(index, derive_key('probe', i)) if fresh else index]
        video = sample['inputs'].float()[None] / 127.5 - 1
        if video.shape[2] <= 2 * vae.temporal_ratio:
            raise ValueError(
                f'probes need clips of at least {1 + 2 * vae.temporal_ratio} frames, three groups, got {video.shape[2]}'
            )
        yield index, analysis.encode_clip(vae, video, frozen=not fresh)
        bar.update()
    print(file=sys.stderr)


def rows_of(index: int, clip: analysis.ClipLatents, dataset: Dataset, temporal_ratio: int, spatial_ratio: int) -> Rows:
    """What a clip adds to each probe. Latent frame 0 has seen no motion: rows begin with frame 1."""
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
        velocity = places.diff(dim=0) / temporal_ratio  # frame sides a frame, mean over shapes
        features |= {'velocity_now': frames, 'velocity_next': frames[:-1]}
        targets |= {'velocity_now': velocity, 'velocity_next': velocity[1:]}
    return Rows(features, targets)


def joined(rows: Sequence[Rows], name: str) -> tuple[Tensor, Tensor]:
    """Features and targets of one probe over clips."""
    return torch.cat([row.features[name] for row in rows]), torch.cat([row.targets[name] for row in rows])


def probe(fitted_on: Sequence[Rows], judged_on: Sequence[Rows], name: str) -> dict[str, Any]:
    """One probe's numbers."""
    apart = [row for i, row in enumerate(fitted_on) if i % APART == 0]
    rest = [row for i, row in enumerate(fitted_on) if i % APART]
    found = fit_probe(*joined(rest, name), joined(apart, name))
    features, targets = joined(judged_on, name)
    predictions = found(features)
    explained = explained_variance(predictions, targets)
    average = joined(rest, name)[1].mean(dim=0)
    return {
        'explained_variance': None if math.isnan(explained) else explained,  # JSON has no NaN
        'endpoint_error': (predictions - targets).norm(dim=-1).mean().item(),
        'endpoint_error_of_mean': (average - targets).norm(dim=-1).mean().item(),
        'penalty': found.penalty,
        'num_features': features.shape[1],
        'num_fitted': len(joined(rest, name)[0]),
        'num_judged': len(features),
    }


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    try:
        cfg = read_config(args.config, args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
        checkpoint = resolve_checkpoint(args.checkpoint)
        train, held_out = (
            DATASETS.build(without_transforms(cfg[f'{split}_dataloader'].dataset, REMOVED))
            for split in ('train', 'val')
        )
        vae = VideoAutoencoderInferencer(args.config, args.checkpoint).vae
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
    except (ClipError, ValueError, OSError) as error:  # the user's to mend: no trace of ours needed
        sys.exit(f'error: {error}')
    probes = {name: probe(fitted_on, judged_on, name) for name in judged_on[0].features}
    record, _ = analysis.summarize(changes)
    content = {
        'probes': probes,
        **record,
        'checkpoint': checkpoint,
        'checkpoint_sha256': file_sha256(checkpoint),
        'config': args.config,
        'num_clips': args.num_clips,
        'pvvae_plugin': __version__,
        'torch': torch.__version__,
    }
    write_atomically(args.out / 'probes.json', (json.dumps(content, indent=2) + '\n').encode())
    print(f'{len(judged_on)} held-out clips, maps fitted on {args.num_clips}; share of the variance explained:')
    for name, found in probes.items():
        explained = found['explained_variance']
        print(f'  {name:<14} {"-" if explained is None else f"{explained:.3f}"}')
    print(f'written: {args.out}/probes.json')

"""Encode a dataset once and store the latents for generator training (read by LatentDataset).

pvvae extract-latents pvvae_demo work_dirs/pvvae_demo data/demo_latents
python tools/extract_latents.py configs/pvvae_demo.py work_dirs/pvvae_demo data/demo_latents --flip
torchrun --nproc-per-node 8 tools/extract_latents.py CONFIG CHECKPOINT OUT_DIR --launcher pytorch

After an interruption, run the same command to resume. It also encodes shards again if their videos changed, and tries
skipped videos again. docs/train_generator.md describes the output files.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.dist import barrier, get_dist_info
from mmengine.registry import init_default_scope
from mmengine.utils.dl_utils import set_multi_processing
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin import __version__
from pvvae_plugin.cli.launching import end_processes, start_processes
from pvvae_plugin.cli.parser import CommandParser
from pvvae_plugin.config import add_override_argument, read_config
from pvvae_plugin.datasets import ClipIndex, LatentDataset, latent_shards
from pvvae_plugin.datasets.checking.stuck_workers import limit_reading, naming_files
from pvvae_plugin.datasets.transforms.base import without_transforms
from pvvae_plugin.files import file_state
from pvvae_plugin.functional.keyed_random import derive_key
from pvvae_plugin.models import VideoDataPreprocessor
from pvvae_plugin.models.checkpoints import (
    OWN_WEIGHTS,
    check_brings_weights,
    load_backbone,
    resolve_checkpoint,
    training_progress,
)
from pvvae_plugin.models.generator_checks import warn_of_vae
from pvvae_plugin.progress import ProgressBar
from pvvae_plugin.registry import DATASETS, MODELS

# Transforms that generator data must not use: mirrored views are encoded separately, and a reversed clip shows a
# different action under the same label.
REMOVED = ('FutureDropSampler', 'RandomTimeReverse', 'RandomFlipClip')
NOT_RECORDED = (
    'do not record the sizes and times of their videos (an older version wrote them), so replaced videos are not '
    'noticed; extract them into a new folder if videos changed'
)
DTYPES = {'float32': torch.float32, 'float16': torch.float16}


class Entry(NamedTuple):
    """Clip to encode: clip ``draw`` of video ``index``."""

    index: int
    draw: int


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(description=__doc__)
    parser.add_argument('config', help='config of a VAE or a generator; only model.backbone and the dataset are used')
    parser.add_argument(
        'checkpoint',
        help='checkpoint file, or work directory of a run (uses its last checkpoint); "pretrained" for the weights '
        'that the DiffusersVAE of the config loads',
    )
    parser.add_argument('out_dir', type=Path, help='folder for the latents')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train', help='default: train')
    parser.add_argument('--clips-per-video', type=int, default=1, help='clips drawn from each video (default: 1)')
    parser.add_argument('--flip', action='store_true', help='encode each clip mirrored as well')
    parser.add_argument('--batch-size', type=int, default=8, help='clips encoded at once (default: 8)')
    parser.add_argument('--shard-size', type=int, default=256, help='clips per file (default: 256)')
    parser.add_argument('--dtype', choices=list(DTYPES), default='float32', help='float16 halves the file size')
    parser.add_argument('--verify', action='store_true', help='only check the files already in OUT_DIR; encode nothing')
    add_override_argument(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch'], default='none', help='use pytorch under torchrun')
    args = parser.parse_args(argv)
    for name in ('clips_per_video', 'batch_size', 'shard_size'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be a positive integer, got {getattr(args, name)}')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    set_multi_processing(**cfg.get('env_cfg', {}).get('mp_cfg', {}), distributed=args.launcher != 'none')
    start_processes(args.launcher)
    extract(args, cfg)
    end_processes()


def extract(args: argparse.Namespace, cfg: Config) -> None:
    """Write the latents or, with ``--verify``, check the existing ones."""
    backbone, weights = build_backbone(cfg.model.backbone, args.checkpoint)
    backbone_hash = latent_shards.backbone_hash(cfg.model.backbone)
    if args.verify:
        latents = LatentDataset(args.out_dir, weights['sha256'], backbone_hash, verify=True)
        check_videos(args.out_dir)
        print(f'{args.out_dir}: {len(latents)} clips in {len(latents.manifest["shards"])} shards, all intact')
        return

    dataset, dataset_config = build_dataset(cfg, args)
    videos = [dataset.get_data_info(index) for index in range(len(dataset))]
    # Everything that determines the entries and their order. Shards that differ in any of it must not be mixed.
    source = {
        'checkpoint_sha256': weights['sha256'],
        'backbone_hash': backbone_hash,
        'dataset_hash': latent_shards.config_sha256(dataset_config),
        'videos_hash': latent_shards.config_sha256([[video['path'], video.get('label')] for video in videos]),
        **{name: getattr(args, name) for name in ('split', 'clips_per_video', 'flip', 'shard_size', 'dtype')},
    }
    args.out_dir.mkdir(parents=True, exist_ok=True)
    latent_shards.check_source(args.out_dir, source)

    encoder = ClipEncoder(backbone.to(get_device()), args.flip, DTYPES[args.dtype])
    entries = [Entry(index, draw) for index in range(len(dataset)) for draw in range(args.clips_per_video)]
    shards = [entries[start : start + args.shard_size] for start in range(0, len(entries), args.shard_size)]
    num_workers = cfg[f'{args.split}_dataloader'].get('num_workers', 0)
    write_shards(shards, dataset, encoder, args, source, num_workers)
    barrier()
    if get_dist_info()[0] == 0:
        labels = [video['label'] for video in videos if video.get('label') is not None]
        classes = dataset.metainfo.get('classes')
        facts = {
            'package_version': __version__,
            'source': source,
            'config': args.config,
            'overrides': {name: str(value) for name, value in (args.cfg_options or {}).items()},
            'checkpoint': weights['path'],
            'temporal_ratio': backbone.temporal_ratio,
            'spatial_ratio': backbone.spatial_ratio,
            'classes': list(classes) if classes else None,
            'num_classes': len(classes) if classes else max(labels) + 1 if labels else None,
            'dataset': {'type': type(dataset).__name__, 'num_videos': len(dataset), 'config': dataset_config},
        }
        records = [latent_shards.read_record(args.out_dir, number) for number in range(len(shards))]
        manifest = latent_shards.write_manifest(args.out_dir, records, facts)
        skipped = f', {len(manifest["skipped"])} unreadable clips skipped' if manifest['skipped'] else ''
        print(f'\n{manifest["num_clips"]} clips in {args.out_dir / latent_shards.MANIFEST}{skipped}')


def check_videos(root: Path) -> None:
    """Check that no video changed since it was encoded, and print the skipped ones.

    Raises:
        ValueError: If a video changed, or is missing while others exist.
    """
    records = [latent_shards.read_json(path) for path in sorted(root.glob('shard-*.json'))]
    skipped = [clip['path'] for record in records for clip in record['skipped']]
    if skipped:
        print(
            f'{len(skipped)} unreadable clips were skipped, e.g. {skipped[0]}; run the command again to try them again'
        )
    if any('files' not in record for record in records):
        print(f'latents in {root} {NOT_RECORDED}')
    changed = [path for record in records for path in latent_shards.changed_videos(record) or ()]
    num_videos = sum(len(record.get('files', ())) for record in records)
    if changed and not any(os.path.exists(path) for record in records for path in record.get('files', ())):
        print('the videos are not on this machine; they were not compared with those that were encoded')
    elif changed:
        raise ValueError(
            f'{len(changed)} of {num_videos} videos changed since they were encoded, e.g. {changed[0]}: run the same '
            'command without --verify to encode them again'
        )


def build_backbone(config: dict, checkpoint: str) -> tuple[nn.Module, dict[str, str]]:
    """Return the VAE in evaluation mode, and the ``path`` and ``sha256`` of its weights."""
    if checkpoint == OWN_WEIGHTS:
        check_brings_weights(config)
    backbone = MODELS.build(config).requires_grad_(False).eval()
    if checkpoint == OWN_WEIGHTS:
        return backbone, backbone.source
    path = resolve_checkpoint(checkpoint)
    warn_of_vae({'path': path, **training_progress(path)}, backbone)
    return backbone, {'path': path, 'sha256': load_backbone(backbone, path)}


def build_dataset(cfg: Config, args: argparse.Namespace) -> tuple[Dataset, dict]:
    """Build the split's dataset without the transforms in ``REMOVED``; return it with its config.

    Raises:
        ValueError: If the split does not exist, the dataset does not list its clips, or all clips drawn from a video
            would be identical.
    """
    loader = cfg.get(f'{args.split}_dataloader')
    if not loader:
        raise ValueError(f'{args.config} has no {args.split}_dataloader; choose another --split')
    config = without_transforms(loader.dataset, REMOVED)
    dataset = DATASETS.build(config)
    if not hasattr(dataset, 'get_data_info'):
        raise ValueError(
            f'{args.split}_dataloader.dataset is a {type(dataset).__name__}, which does not list its clips; set '
            f'{args.split}_dataloader.dataset to the dataset that it wraps, in a config that inherits this one'
        )
    if args.clips_per_video > 1 and getattr(dataset, 'test_mode', False):
        raise ValueError(
            f'--clips-per-video {args.clips_per_video} would encode each clip {args.clips_per_video} times: the '
            f'dataset of the {args.split} split is in test_mode; use 1, or set '
            f'{args.split}_dataloader.dataset.test_mode=False'
        )
    return dataset, config


class ClipEncoder:
    """Encoder of clips into posterior moments.

    Args:
        backbone: The VAE.
        flip: Encode each clip mirrored as well.
        dtype: Type of the moments.
    """

    def __init__(self, backbone: nn.Module, flip: bool, dtype: torch.dtype) -> None:
        self.backbone = backbone
        self.preprocessor = VideoDataPreprocessor().to(get_device())
        self.flip = flip
        self.dtype = dtype

    @torch.no_grad()
    def __call__(self, clips: list[Tensor], samples: list) -> tuple[Tensor, Tensor]:
        """Return mean and logvar, each ``(N, V, C, t, h, w)``.

        Raises:
            ValueError: If a value is not finite in ``dtype``.
        """
        video = self.preprocessor({'inputs': clips, 'data_samples': samples})['inputs']
        # Mirroring the latents would differ: the network is not symmetric.
        posteriors = [self.backbone.encode(view) for view in ([video, video.flip(-1)] if self.flip else [video])]
        moments = []
        for name in ('mean', 'logvar'):
            values = torch.stack([getattr(p, name) for p in posteriors], dim=1).to('cpu', self.dtype)
            finite = values.flatten(1).isfinite().all(1).tolist()
            if not all(finite):
                raise ValueError(
                    f'the {name} of {samples[finite.index(False)].metainfo["path"]} is not finite as {self.dtype}; '
                    'check the checkpoint' + ('' if self.dtype == torch.float32 else ', or use --dtype float32')
                )
            moments.append(values)
        return moments[0], moments[1]


def write_shards(
    shards: list[list[Entry]],
    dataset: Dataset,
    encoder: ClipEncoder,
    args: argparse.Namespace,
    source: dict,
    num_workers: int,
) -> None:
    """Write the shards of this rank, except those that are already complete."""
    rank, world_size = get_dist_info()
    pending = [n for n in range(rank, len(shards), world_size) if not is_finished(args.out_dir, n, dataset)]
    barrier()  # every rank has compared the manifest's source
    if pending:  # until all shards are written, the folder is incomplete
        (args.out_dir / latent_shards.MANIFEST).unlink(missing_ok=True)
    # No batch crosses the end of a shard, so a shard's content does not depend on which shards were pending.
    batches = {
        number: [shards[number][i : i + args.batch_size] for i in range(0, len(shards[number]), args.batch_size)]
        for number in pending
    }
    indices = [[_clip_index(entry) for entry in batch] for shard in batches.values() for batch in shard]
    loader = DataLoader(dataset, batch_sampler=indices, num_workers=num_workers, collate_fn=pseudo_collate)
    batches_read = iter(limit_reading(loader))
    # Only rank 0 shows progress; the other ranks have as much work.
    progress = ProgressBar(sum(len(shards[number]) for number in pending)) if rank == 0 and pending else None
    for number, shard in batches.items():
        # Before they are read: a video that is replaced meanwhile counts as changed.
        videos = {
            path: file_state(path) for path in (_file(dataset, entry.index) for batch in shard for entry in batch)
        }
        with naming_files('Finished shards are kept; run the same command to resume. '):
            entries, skipped = encode_shard(shard, batches_read, encoder, progress)
        latent_shards.write_shard(args.out_dir, number, entries, skipped, source, videos)


def is_finished(root: Path, number: int, dataset: Dataset) -> bool:
    """Return whether a shard exists, its checksum matches, and its videos are still those that were encoded."""
    record = latent_shards.read_record(root, number)
    if record is None:
        return False
    problem = latent_shards.shard_problem(root, record, verify=True)
    changed = latent_shards.changed_videos(record)
    if changed is None and number == 0:
        print(f'latents in {root} {NOT_RECORDED}')
    if not problem and changed:
        problem = f'{record["name"]}: {len(changed)} video{"s" * (len(changed) > 1)} changed, e.g. {changed[0]}'
    if not problem and (path := next((c['path'] for c in record['skipped'] if _is_readable(dataset, c)), None)):
        problem = f'{record["name"]}: {path} was skipped but can be read now'
    if problem:
        print(f'{problem}; encoding it again')
    return not problem


def _is_readable(dataset: Dataset, skipped: dict) -> bool:
    sample = dataset[_clip_index(Entry(skipped['index'], skipped['draw']))]
    return 'substituted_path' not in sample['data_samples'].metainfo


def _file(dataset: Dataset, index: int) -> str:
    info = dataset.get_data_info(index)
    return info.get('file', info['path'])


def encode_shard(
    shard: list[list[Entry]], loader: Iterator[dict], encoder: ClipEncoder, progress: ProgressBar | None
) -> tuple[latent_shards.LatentEntries | None, list[dict]]:
    """Return the entries of a shard (None if empty) and the clips that could not be read."""
    moments, kept, skipped = [], [], []
    for batch in shard:
        data = next(loader)
        found = list(zip(batch, data['inputs'], data['data_samples'], strict=True))
        # The dataset substitutes unreadable clips by others, which have their own entries: drop these.
        whole = [triple for triple in found if 'substituted_path' not in triple[2].metainfo]
        skipped += [
            {**entry._asdict(), 'path': sample.metainfo['substituted_path']}
            for entry, _, sample in found
            if 'substituted_path' in sample.metainfo
        ]
        if whole:
            moments.append(encoder([clip for _, clip, _ in whole], [sample for _, _, sample in whole]))
            kept += [(entry, sample.metainfo) for entry, _, sample in whole]
        if progress:
            progress.update(len(batch))
    if not kept:
        return None, skipped
    shapes = sorted({tuple(mean.shape[2:]) for mean, _ in moments})
    if len(shapes) > 1:
        raise ValueError(
            f'the latents of one shard (starting at {kept[0][1]["path"]}) have different shapes: {shapes}; all clips '
            'must have the same size: resize and crop them in the pipeline'
        )
    labels = [meta.get('label') for _, meta in kept]
    entries = latent_shards.LatentEntries(
        mean=torch.cat([mean for mean, _ in moments]),
        logvar=torch.cat([logvar for _, logvar in moments]),
        labels=[-1 if label is None else label for label in labels],
        indices=[entry.index for entry, _ in kept],
        draws=[entry.draw for entry, _ in kept],
        paths=[meta['path'] for _, meta in kept],
    )
    return entries, skipped


def _clip_index(entry: Entry) -> ClipIndex:
    return ClipIndex(entry.index, derive_key('latents', entry.index, entry.draw))

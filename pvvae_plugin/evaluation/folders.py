"""Distances between two sets of anybody's videos: folders, lists or arrays."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.evaluator import Evaluator
from mmengine.utils import ProgressBar
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin.datasets.readers.base import is_image, is_video
from pvvae_plugin.functional.keyed_random import numpy_rng
from pvvae_plugin.registry import DATASETS, METRICS

from .protocols import Protocol
from .set_metric import check_distinct

SAMPLES = 'samples.json'  # beside videos that tools/sample.py made, which are not the only ones in their folder
UNPAIRED = {'fvd': 'FVD', 'kvd': 'KVD', 'is': 'VideoInceptionScore', 'proxy': 'ProxyFVD'}
PAIRED = {'rfvd': 'FVD', 'rkvd': 'KVD', 'rproxy': 'ProxyFVD'}
PER_FRAME = ('psnr', 'ssim', 'lpips')


def videos_config(path: str, **options: Any) -> dict[str, Any]:
    """Config of the data set of a folder of videos, a list of them, or an array.

    Args:
        path: A folder; a list of paths, relative to its own folder, one a line, or ``.csv`` of segments; or ``.npy``
            of uint8 ``(N, T, H, W, 3)``.
        **options: Further arguments of the data set.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If it is a single video or image.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'no folder, list or array of videos at {path!r} (seen from {os.getcwd()})')
    if is_video(path) or is_image(path):
        raise ValueError(f'{path} is one file: give a folder, a list of paths or an array, of at least 2 videos')
    common = {'pipeline': [{'type': 'PackClip'}], **options}
    if path.lower().endswith('.npy'):
        return {'type': 'VideoArrayDataset', 'data_root': path, **common}
    if os.path.isdir(path):
        listed = {'ann_file': SAMPLES} if os.path.isfile(os.path.join(path, SAMPLES)) else {}
        return {'type': 'VideoDataset', 'data_root': path, **listed, **common}
    ann_file = os.path.abspath(path)
    return {'type': 'VideoDataset', 'data_root': os.path.dirname(ann_file), 'ann_file': ann_file, **common}


def build_metrics(
    names: Sequence[str],
    protocol: Protocol,
    extractor: Mapping[str, Any],
    classifier: Mapping[str, Any],
    reference: Mapping[str, Any],
    lpips_net: str = 'alex',
) -> tuple[list[Any], bool]:
    """Metrics by their short names.

    Args:
        names: Of :data:`UNPAIRED`; or of :data:`PAIRED` and :data:`PER_FRAME`, which compare each video with its own
            source.
        protocol: The convention.
        extractor: Config for FVD and KVD.
        classifier: Config for the Inception Score.
        reference: Arguments of :class:`Reference` for unpaired metrics.
        lpips_net: Backbone of LPIPS.

    Returns:
        The metrics, and whether they are of pairs.

    Raises:
        ValueError: If a name is unknown, or names of both kinds are given.
    """
    known = [*UNPAIRED, *PAIRED, *PER_FRAME]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f'no metric {", ".join(unknown) or "given"}: there are {", ".join(known)}')
    of_pairs = [name for name in names if name not in UNPAIRED]
    if of_pairs and len(of_pairs) < len(names):
        raise ValueError(
            f'{", ".join(of_pairs)} compare each video with its own source, the others whole sets: give one kind, '
            f'{", ".join(UNPAIRED)} or {", ".join([*PAIRED, *PER_FRAME])}'
        )
    configs = []
    for name in dict.fromkeys(names):
        if name in PER_FRAME:
            continue
        config = {'type': (UNPAIRED | PAIRED)[name], 'protocol': protocol}
        if 'proxy' not in name:
            config['extractor'] = dict(classifier if name == 'is' else extractor)
        if name in UNPAIRED:
            config['reference'] = dict(reference)
        configs.append(config)
    if set(names) & set(PER_FRAME):
        lpips = {'type': 'LPIPS', 'net': lpips_net} if 'lpips' in names else None
        configs.append({'type': 'VideoReconstruction', 'lpips': lpips})
    return [METRICS.build(config) for config in configs], bool(of_pairs)


def evaluate_videos(
    metrics: Sequence[Any],
    judged: Mapping[str, Any],
    num_samples: int,
    batch_size: int = 8,
    num_workers: int = 2,
    sources: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Feed a set of videos to metrics, on every process its share.

    Args:
        metrics: See :func:`build_metrics`.
        judged: Config of the videos.
        num_samples: How many of them at most, spread over all.
        batch_size: Clips decoded and extracted at once.
        num_workers: Processes that decode.
        sources: Config of their sources, where each is compared with its own: the video of the same name, or the same
            place in an array.

    Returns:
        The numbers; records are the metrics' own.

    Raises:
        ValueError: If a video has no source, or differs from it in size.
    """
    dataset = DATASETS.build(dict(judged))
    pairs = None if sources is None else _Pairs(dataset, DATASETS.build(dict(sources)))
    order = numpy_rng('judged clips').permutation(len(dataset))[:num_samples].tolist()
    check_distinct(metrics)
    for metric in metrics:
        if hasattr(metric, 'prepare'):
            metric.prepare(dataset.clip_len, len(order))
    rank, world_size = get_dist_info()
    mine = list(range(rank, len(order), world_size))  # positions in the order
    loader = DataLoader(
        pairs or dataset,
        batch_size,
        sampler=[order[position] for position in mine],
        num_workers=num_workers,
        collate_fn=list,
        generator=torch.Generator(),  # else the loader draws its workers' seed from the global state
    )
    evaluator = Evaluator(list(metrics))
    progress = ProgressBar(len(mine), file=sys.stderr) if rank == 0 and mine else None
    positions = iter(mine)
    for batch in loader:
        evaluator.process([_sample(item, next(positions), paired=pairs is not None) for item in batch])
        for _ in batch if progress else ():
            progress.update()
    if progress:
        print(file=sys.stderr)
    return evaluator.evaluate(len(order))


def _sample(item: Any, position: int, paired: bool) -> dict[str, Any]:
    """What metrics read of a clip, or of a clip and its source."""
    clip, source = item if paired else (item, None)
    sample: dict[str, Any] = {'index': position}
    for part in filter(None, (clip, source)):
        if failed := part['data_samples'].get('substituted_path'):
            sample['substituted_path'] = failed
    if source is None:
        return {**sample, 'generated': clip['inputs']}
    if clip['inputs'].shape != source['inputs'].shape and 'substituted_path' not in sample:
        paths = [part['data_samples'].path for part in (clip, source)]
        raise ValueError(
            f'{paths[0]} is {tuple(clip["inputs"].shape[1:])} (frames, height, width) and its source {paths[1]} '
            f'{tuple(source["inputs"].shape[1:])}: bring them to one size'
        )
    video, reconstruction = (part['inputs'].float() / 127.5 - 1 for part in (source, clip))
    return {**sample, 'video': video, 'reconstruction': reconstruction}


class _Pairs(Dataset):
    """Clips with their sources."""

    def __init__(self, judged: Dataset, sources: Dataset) -> None:
        self.judged, self.sources = judged, sources
        names_of_sources, names = _names(sources), _names(judged)
        of_source = {name: i for i, name in enumerate(names_of_sources)}
        lonely = [name for name in names if name not in of_source]
        if lonely:
            raise ValueError(
                f'{len(lonely)} of {len(names)} videos have no source of their name, e.g. {lonely[0]!r}: names '
                'without their endings must be alike'
            )
        self.index_of_source = [of_source[name] for name in names]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.judged[index], self.sources[self.index_of_source[index]]

    def __len__(self) -> int:
        return len(self.judged)


def _names(dataset: Dataset) -> list[str]:
    """By which videos and their sources are told to belong together.

    The number in an array; or the name of the file without its ending, with the folder below the root where files of
    several folders have one name, and with the times of a segment.
    """
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    if 'number' in infos[0]:
        return [str(info['number']) for info in infos]
    files = [Path(info.get('file', info['path'])) for info in infos]
    segments = [info['path'].removeprefix(info.get('file', info['path'])) for info in infos]
    short = [file.stem + segment for file, segment in zip(files, segments, strict=True)]
    if len(set(short)) == len(short):
        return short
    relative = [os.path.relpath(file.with_suffix(''), dataset.data_root) for file in files]
    return [name + segment for name, segment in zip(relative, segments, strict=True)]

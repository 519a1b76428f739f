"""Metrics of two sets of videos, given as folders, lists or arrays."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin.datasets.checking.stuck_workers import limit_reading, naming_files
from pvvae_plugin.datasets.readers.base import is_image, is_video
from pvvae_plugin.functional.keyed_random import numpy_rng
from pvvae_plugin.progress import ProgressBar
from pvvae_plugin.registry import DATASETS, METRICS

from .protocols import Protocol
from .set_metric import check_distinct

SAMPLES = 'samples.json'  # written by tools/sample.py; its folder also holds other videos
UNPAIRED = {'fvd': 'FVD', 'kvd': 'KVD', 'is': 'VideoInceptionScore', 'proxy': 'ProxyFVD'}
PAIRED = {'rfvd': 'FVD', 'rkvd': 'KVD', 'rproxy': 'ProxyFVD'}
PER_FRAME = ('psnr', 'ssim', 'lpips')
SIDES = ('fake', 'real')


class Evaluation(NamedTuple):
    """Results of :func:`evaluate_videos`.

    Attributes:
        numbers: Name -> value; full records are in each metric's ``records``.
        unreadable: Paths of the ``'fake'`` and of the ``'real'`` videos that could not be read, sorted.
    """

    numbers: dict[str, float]
    unreadable: dict[str, list[str]]


def videos_config(path: str, **options: Any) -> dict[str, Any]:
    """Return the dataset config of a folder, list or array of videos.

    Args:
        path: A folder, a list of videos or an array. A list is a text file with one path per line, relative to the
            list's folder, or a ``.csv`` of segments. An array is an ``.npy`` of uint8 ``(N, T, H, W, 3)``.
        **options: Further arguments of the dataset.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the path is a single video or image.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'no folder, list or array of videos at {path!r} (current directory: {os.getcwd()})')
    if is_video(path) or is_image(path):
        raise ValueError(f'{path} is one file: give a folder, a list of paths or an array with at least 2 videos')
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
    """Build metrics from their short names.

    Args:
        names: Either names in :data:`UNPAIRED`, or names in :data:`PAIRED` and :data:`PER_FRAME`. The latter compare
            each video with its source.
        protocol: Evaluation protocol.
        extractor: Config of the feature extractor for FVD and KVD.
        classifier: Config of the classifier for the Inception Score.
        reference: Arguments of :class:`Reference` for unpaired metrics.
        lpips_net: Backbone of LPIPS.

    Returns:
        The metrics, and True if they compare pairs.

    Raises:
        ValueError: If a name is unknown, or paired and unpaired metrics are mixed.
    """
    known = [*UNPAIRED, *PAIRED, *PER_FRAME]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f'no metric {", ".join(unknown) or "given"}; choose from {", ".join(known)}')
    of_pairs = [name for name in names if name not in UNPAIRED]
    if of_pairs and len(of_pairs) < len(names):
        raise ValueError(
            f'{", ".join(of_pairs)} cannot be mixed with metrics of whole sets; choose either from '
            f'{", ".join(UNPAIRED)} or from {", ".join([*PAIRED, *PER_FRAME])}'
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
) -> Evaluation:
    """Evaluate metrics on a set of videos, sharded across the processes.

    Args:
        metrics: See :func:`build_metrics`.
        judged: Dataset config of the videos.
        num_samples: Maximum number of videos; a random subset if there are more.
        batch_size: Number of clips per batch.
        num_workers: Number of worker processes that decode videos.
        sources: Dataset config of the source videos, for paired metrics. Videos are paired by file name, or by
            position in an array.

    Raises:
        ValueError: If a video has no source, its size differs from its source's, or two files have the same name.
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
        generator=torch.Generator(),  # without it, the loader draws its base seed from the global rng
    )
    evaluator = Evaluator(list(metrics))
    progress = ProgressBar(len(mine), file=sys.stderr) if rank == 0 and mine else None
    positions = iter(mine)
    unreadable: set[tuple[str, str]] = set()
    with naming_files():
        for batch in limit_reading(loader):
            unreadable.update(failed for item in batch for failed in _unreadable(item, paired=pairs is not None))
            evaluator.process([_sample(item, next(positions), paired=pairs is not None) for item in batch])
            for _ in batch if progress else ():
                progress.update()
    if progress:
        print(file=sys.stderr)
    numbers = evaluator.evaluate(len(order))
    unreadable = unreadable.union(*all_gather_object(unreadable))
    records = [record for metric in metrics for record in getattr(metric, 'records', {}).values()]
    unreadable.update(('real', path) for record in records for path in record['real_unreadable'])
    return Evaluation(numbers, {side: sorted(path for of, path in unreadable if of == side) for side in SIDES})


def _unreadable(item: Any, paired: bool) -> Iterator[tuple[str, str]]:
    """Yield side and path of the videos of an item that could not be read."""
    for side, part in zip(SIDES, item if paired else (item,), strict=False):
        if failed := part['data_samples'].get('substituted_path'):
            yield side, failed


def _sample(item: Any, position: int, paired: bool) -> dict[str, Any]:
    """Return the sample that metrics read, from a clip or from a clip and its source."""
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
            f'{paths[0]} is {tuple(clip["inputs"].shape[1:])} (frames, height, width) but its source {paths[1]} is '
            f'{tuple(source["inputs"].shape[1:])}; resize them to the same size'
        )
    video, reconstruction = (part['inputs'].float() / 127.5 - 1 for part in (source, clip))
    return {**sample, 'video': video, 'reconstruction': reconstruction}


class _Pairs(Dataset):
    """Dataset of clips paired with their sources."""

    def __init__(self, judged: Dataset, sources: Dataset) -> None:
        self.judged, self.sources = judged, sources
        names_of_sources, names = _names(sources), _names(judged)
        for dataset, found in ((sources, names_of_sources), (judged, names)):
            _check_one_file_per_name(dataset, found, set(names))
        of_source = {name: i for i, name in enumerate(names_of_sources)}
        lonely = [name for name in names if name not in of_source]
        if lonely:
            raise ValueError(
                f'{len(lonely)} of {len(names)} videos have no source with the same name, e.g. {lonely[0]!r}; a video '
                'and its source must have the same file name, except for the extension'
            )
        self.index_of_source = [of_source[name] for name in names]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.judged[index], self.sources[self.index_of_source[index]]

    def __len__(self) -> int:
        return len(self.judged)


def _check_one_file_per_name(dataset: Dataset, names: Sequence[str], needed: Collection[str]) -> None:
    """Check that no two files have the same of the needed names: one of them would be compared with a wrong video."""
    paths: dict[str, str] = {}
    for i, name in enumerate(names):
        path = dataset.get_data_info(i)['path']
        if name in needed and paths.setdefault(name, path) != path:
            raise ValueError(
                f'{paths[name]} and {path} have the same name {name!r}, which pairs a video with its source; rename or '
                'remove one of them'
            )


def _names(dataset: Dataset) -> list[str]:
    """Return the names by which videos are matched with their sources.

    The name of a video in an array is its position. The name of a file is its stem plus the times of the segment. If
    these names are not unique, the path below the root replaces the stem.
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

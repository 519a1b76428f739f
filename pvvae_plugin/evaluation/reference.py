"""Features of the real clips that generated clips are compared with, cached on disk."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import weakref
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object, barrier, get_dist_info
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin.datasets.checking.stuck_workers import limit_reading, naming_files
from pvvae_plugin.datasets.latent_shards import config_sha256
from pvvae_plugin.files import file_state
from pvvae_plugin.functional.keyed_random import numpy_rng
from pvvae_plugin.progress import ProgressBar
from pvvae_plugin.registry import DATASETS

from .protocols import Protocol
from .video_features import VideoFeatures

CACHE_DIR = 'work_dirs/reference_features'
FORMAT_VERSION = '2'

_shared: MutableMapping[str, Reference] = weakref.WeakValueDictionary()


class RealFeatures(NamedTuple):
    """Features of two disjoint sets of real clips.

    Attributes:
        reference: ``(N, D)``, compared with generated clips.
        others: ``(M, D)`` of ``M <= N`` other clips. Their distance to the reference is the noise floor.
        skipped: Indices of the clips that could not be read.
    """

    reference: Tensor
    others: Tensor
    skipped: list[int]

    @property
    def left_out(self) -> int:
        """Number of clips that could not be read."""
        return len(self.skipped)


class Reference:
    """Real clips of a dataset and their features.

    The clips are the first ``2 * num_samples`` of a fixed permutation, which depends only on the length of the dataset.
    The name of the cached file contains a digest of the dataset config, of the paths, sizes and modification times of
    the chosen files, of the extractor with its weights, and of the preprocessing. Clips that could not be read are
    tried again whenever the cache is used.

    Args:
        features: Features to compute.
        dataset: Config of a dataset of clips. The protocol sets their length, frame interval and position.
        num_samples: Number of reference clips, limited by the dataset; None uses the protocol's number.
        batch_size: Number of clips per batch.
        num_workers: Number of worker processes that decode videos.
        cache_dir: Folder of cached features; None disables the cache.

    Raises:
        ValueError: If the config contradicts the protocol, the dataset has fewer than two clips, or ``cache_dir`` is
            not writable.
    """

    def __init__(
        self,
        features: VideoFeatures,
        dataset: Mapping[str, Any],
        num_samples: int | None = None,
        batch_size: int = 8,
        num_workers: int = 2,
        cache_dir: str | None = CACHE_DIR,
    ) -> None:
        for name, value, least in (('num_samples', num_samples, 2), ('batch_size', batch_size, 1)):
            if value is not None and value < least:
                raise ValueError(f'reference.{name} must be at least {least}, got {value}')
        self.features = features
        self.config = real_clips_config(dataset, features.protocol)
        self.dataset: Dataset = DATASETS.build(self.config)
        self.num_samples = num_samples or features.protocol.num_samples
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        if self.cache_dir:
            _check_writable(self.cache_dir)
        if len(self.dataset) < 2:
            where = self.config.get('ann_file') or self.config.get('data_root') or self.config['type']
            raise ValueError(f'at least 2 real clips are needed, {where} has {len(self.dataset)}')
        order = numpy_rng('real clips').permutation(len(self.dataset))
        self._chosen = [int(index) for index in order[: 2 * self.num_samples]]
        self._computed: RealFeatures | None = None

    @functools.cached_property
    def record(self) -> dict[str, Any]:
        """Description of the reference as plain values."""
        return {
            'dataset': self.config,
            'clips_in_dataset': len(self.dataset),
            'listing_sha256': listing_sha256(self.dataset, self._chosen),
            'num_samples': self.num_samples,
        }

    def get(self) -> RealFeatures:
        """Return the features of all clips, from the cache or computed and cached now.

        Every process must call this method.
        """
        if self._computed is None:
            path = self._cache_file()
            rank, _ = get_dist_info()
            # Only rank 0 reads: if the file appears in the meantime, all processes still take the same branch.
            found = all_gather_object(self._read(path) if rank == 0 and path else None)[0]
            if found is None:
                found = self._extract()
                if rank == 0 and path:
                    _write(path, found, self.record)
                barrier()
            elif rank == 0:
                print_log(f'real clips: loaded features from {path}', logger='current')
            self._computed = found
        return self._computed

    def paths(self, indices: Sequence[int]) -> list[str]:
        """Return the paths of the clips with these indices in the dataset."""
        return [str(self.dataset.get_data_info(index)['path']) for index in indices]

    def _extract(self) -> RealFeatures:
        rank, world_size = get_dist_info()
        mine = list(range(rank, len(self._chosen), world_size))  # positions in the choice
        loader = DataLoader(
            self.dataset,
            self.batch_size,
            sampler=[self._chosen[position] for position in mine],
            num_workers=self.num_workers,
            collate_fn=list,
            generator=torch.Generator(),  # without it, the loader draws its base seed from the global rng
        )
        if rank == 0:
            print_log(
                f'real clips: extracting {self.features.extractor.name} features of {len(self._chosen)} clips',
                logger='current',
            )
        bar = ProgressBar(len(mine), file=sys.stderr) if rank == 0 else None
        kept, start = {}, 0
        with naming_files():
            for batch in limit_reading(loader):
                whole = [i for i, item in enumerate(batch) if not item['data_samples'].get('substituted_path')]
                if whole:
                    features = self.features.of_clips([batch[i]['inputs'] for i in whole])
                    kept.update({mine[start + i]: row for i, row in zip(whole, features, strict=True)})
                start += len(batch)
                for _ in batch if bar else ():
                    bar.update()
        if bar:
            print(file=sys.stderr)
        gathered = {position: row for part in all_gather_object(kept) for position, row in part.items()}
        rows = [gathered[position] for position in sorted(gathered)]
        if len(rows) < 2:
            raise ValueError(
                f'only {len(rows)} of {len(self._chosen)} real clips of {self.config} could be read; at least 2 are '
                'needed, check the files'
            )
        # If there are too few clips for both sets, the reference comes first.
        features = torch.stack(rows)
        skipped = [index for position, index in enumerate(self._chosen) if position not in gathered]
        return RealFeatures(features[: self.num_samples], features[self.num_samples :], skipped)

    def _cache_file(self) -> Path | None:
        if self.cache_dir is None:
            return None
        key = config_sha256({**self.record, 'features': self.features.key, 'format': FORMAT_VERSION})
        name = f'{self.features.extractor.name}{self.features.protocol.num_frames}'
        return self.cache_dir / f'{name}-{key[:16]}.safetensors'

    def _read(self, path: Path) -> RealFeatures | None:
        """Read cached features; return None if the file does not exist or does not match the current settings."""
        if not path.exists():
            return None
        try:
            with safe_open(str(path), framework='pt') as file:
                record = json.loads(file.metadata()['pvvae_plugin'])
                found = RealFeatures(file.get_tensor('reference'), file.get_tensor('others'), record.pop('skipped'))
            expected = json.loads(json.dumps(self.record, default=str))
            if record != expected or not set(found.skipped) <= set(self._chosen):
                raise ValueError('it describes other clips')
            for features in found[:2]:
                if features.dtype != torch.float32 or features.shape[1:] != (self.features.extractor.feature_dim,):
                    raise ValueError(f'its features are {features.dtype} {tuple(features.shape)}')
                if not features.isfinite().all():
                    raise ValueError('its features are not finite')
            if sum(map(len, found[:2])) + found.left_out != len(self._chosen) or len(found.reference) < 2:
                raise ValueError('its number of clips is wrong')
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            print_log(f'{path} is damaged, computing it again: {error}', logger='current', level=logging.WARNING)
            return None
        for index in found.skipped:
            if not self.dataset[index]['data_samples'].get('substituted_path'):
                name = self.dataset.get_data_info(index)['path']
                print_log(f'{name} was skipped but can be read now, computing {path} again', logger='current')
                return None
        return found


def real_clips_config(dataset: Mapping[str, Any], protocol: Protocol) -> dict[str, Any]:
    """Complete the dataset config of real clips with the protocol's settings.

    Args:
        dataset: Config of a :class:`ClipDataset`, without a pipeline or with one that ends in :class:`PackClip`.
        protocol: Evaluation protocol.

    Raises:
        ValueError: If the config contradicts the protocol or has random transforms.
    """
    config = dict(dataset.to_dict() if hasattr(dataset, 'to_dict') else dataset)
    settled = {
        'clip_len': protocol.num_frames,
        'frame_interval': protocol.frame_interval,
        'test_clip': protocol.real_clip,
        'test_mode': True,
        # Unreadable clips are skipped, however many there are.
        'max_substitutes': sys.maxsize,
    }
    for name, value in settled.items():
        if config.get(name, value) != value:
            raise ValueError(
                f'reference.dataset.{name}={config[name]!r} contradicts the protocol {protocol.name!r}, which uses '
                f'{value!r}; remove it, or change the protocol with protocol=dict(base={protocol.name!r}, ...)'
            )
    config.setdefault('pipeline', [{'type': 'PackClip'}])
    random = [kind for step in config['pipeline'] if 'Random' in (kind := str(step['type'])) or 'FutureDrop' in kind]
    if random:
        raise ValueError(
            f'real clips must not be augmented; remove {", ".join(random)} from reference.dataset.pipeline'
        )
    return {**config, **settled}


def shared_reference(features: VideoFeatures, config: Mapping[str, Any]) -> Reference:
    """Return the reference with this config; all metrics with the same features and config share it.

    Args:
        features: Features to compute.
        config: Arguments of :class:`Reference`.

    Raises:
        TypeError: If an argument is unknown.
    """
    config = dict(config.to_dict() if hasattr(config, 'to_dict') else config)
    key = config_sha256({'features': features.key, 'reference': config})
    found = _shared.get(key)
    if found is None:
        _shared[key] = found = Reference(features, **config)
    return found


def listing_sha256(dataset: Dataset, indices: Sequence[int]) -> str:
    """Hash the paths, sizes and times of the files of some clips: replaced files make another dataset."""
    listing = []
    for index in indices:
        info = dataset.get_data_info(index)
        listing.append([str(info['path']), *_state_of(str(info.get('file', info['path'])))])
    listing.append(_state_of(str(getattr(dataset, 'data_root', None) or '')))  # if it is an array of all videos
    return config_sha256(listing)


def _state_of(file: str) -> list[Any]:
    """Return a file's absolute path, size and modification time; an empty list if it does not exist."""
    state = file_state(file)
    return [] if state is None else [os.path.abspath(file), *state]


def _check_writable(folder: Path) -> None:
    """Check that the cache folder is writable before features are computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f'reference.cache_dir {folder} cannot be created ({error}); choose another, or None'
        ) from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f'reference.cache_dir {folder} is not writable; choose another, or None')


def _write(path: Path, features: RealFeatures, record: Mapping[str, Any]) -> None:
    header = json.dumps({**record, 'skipped': features.skipped}, default=str)
    tensors = {'reference': features.reference.contiguous(), 'others': features.others.contiguous()}
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        temporary.write_bytes(save(tensors, metadata={'pvvae_plugin': header}))
        os.replace(temporary, path)
    except OSError as error:  # the run can continue without the cache
        print_log(f'features of real clips were not cached: {error}', logger='current', level=logging.WARNING)
    finally:
        temporary.unlink(missing_ok=True)

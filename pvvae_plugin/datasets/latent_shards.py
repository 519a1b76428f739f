"""The format of cached latents: shards of posterior moments, a record beside each, one manifest over all.

A folder of latents holds

- ``shard-00000.safetensors``, ...: ``mean`` and ``logvar`` ``(E, V, C, t, h, w)`` of ``E`` clips in ``V`` views (1, or
  2 where the mirrored clip was encoded too), and ``label`` (-1 for none), ``index`` (of the video in the dataset) and
  ``draw`` (which clip of that video), int64 ``(E,)``; the header carries the paths and what the shard was made from;
- ``shard-00000.json``, ...: the shard's size, sha256 and statistics. Written after the shard: where it is, the shard
  is whole;
- ``manifest.json``: written last, when every shard is there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, tensor

from pvvae_plugin import files
from pvvae_plugin.files import file_sha256, publish

FORMAT_VERSION = 1
MANIFEST = 'manifest.json'
# All in one entry: safetensors writes several in an order that differs from run to run.
_HEADER = 'pvvae_plugin'


@dataclass(frozen=True)
class LatentEntries:
    """The clips of a shard, ``E`` of them.

    Attributes:
        mean: ``(E, V, C, t, h, w)``.
        logvar: ``(E, V, C, t, h, w)``.
        labels: Class of each, -1 for none.
        indices: Of the videos in the dataset.
        draws: Which clip of its video each is, from 0.
        paths: Of the videos.
    """

    mean: Tensor
    logvar: Tensor
    labels: Sequence[int]
    indices: Sequence[int]
    draws: Sequence[int]
    paths: Sequence[str]


def config_sha256(config: Any) -> str:
    """Hex digest of a config of plain values; tuples and lists are alike, and so is any order of keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def backbone_hash(backbone: dict) -> str:
    """Digest of a VAE's config (``model.backbone``) without what names weights and not a network."""
    places = ('init_cfg', 'pretrained', 'subfolder', 'download', '_scope_')
    return config_sha256({key: value for key, value in backbone.items() if key not in places})


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f'shard-{number:05d}.safetensors'


def write_shard(root: Path, number: int, entries: LatentEntries | None, skipped: Sequence[dict], source: dict) -> None:
    """Write a shard and then its record, each whole or not at all.

    Args:
        root: The folder.
        number: Which shard.
        entries: Its clips; None if none of them could be read, which writes a record alone.
        skipped: ``dict(index=..., draw=..., path=...)`` of the clips that could not be read.
        source: What the shard was made from, see :func:`check_source`.
    """
    path = root / shard_name(number)
    record: dict[str, Any] = {'name': path.name, 'count': 0, 'skipped': list(skipped), 'source': source}
    if entries is not None:
        temporary = path.with_name(path.name + '.tmp')
        tensors = {
            'mean': entries.mean.contiguous(),
            'logvar': entries.logvar.contiguous(),
            'label': tensor(entries.labels),
            'index': tensor(entries.indices),
            'draw': tensor(entries.draws),
        }
        content = save(tensors, metadata={_HEADER: json.dumps({'source': source, 'paths': list(entries.paths)})})
        temporary.write_bytes(content)  # save_file() makes files that nobody but their owner may read
        record |= {
            'count': len(entries.paths),
            'bytes': len(content),
            'sha256': hashlib.sha256(content).hexdigest(),
            'latent_shape': list(entries.mean.shape[2:]),
            'statistics': _statistics(entries.mean, entries.logvar),
        }
        publish(temporary, path)
    write_json(path.with_suffix('.json'), record)


def read_record(root: Path, number: int) -> dict | None:
    """The record of a shard, None if there is none."""
    path = (root / shard_name(number)).with_suffix('.json')
    return read_json(path) if path.is_file() else None


def shard_problem(root: Path, record: dict, verify: bool) -> str | None:
    """What is wrong with the shard of a record, None if nothing; its hash is compared only with ``verify``."""
    path = root / record['name']
    if not record['count']:
        return None
    if not path.is_file():
        return f'{path} is missing'
    if path.stat().st_size != record['bytes']:
        return f'{path} is damaged: {path.stat().st_size} bytes, {record["bytes"]} were written'
    if verify and file_sha256(path) != record['sha256']:
        return f'{path} is damaged: its sha256 is not the one that was written'
    return None


def check_source(root: Path, source: dict) -> None:
    """Refuse a folder with latents of another origin.

    Args:
        root: The folder.
        source: What this run makes latents from: digests and settings.

    Raises:
        ValueError: If a record or the manifest there names another, saying which and in what, or other files are there.
    """
    other = [path.name for path in root.iterdir() if not path.name.startswith(('shard-', '.', MANIFEST))]
    if other:
        raise ValueError(f'{root} holds other things ({", ".join(sorted(other)[:3])}): give a folder of its own')
    for path in sorted([*root.glob('shard-*.json'), *root.glob(MANIFEST)]):
        if difference := _difference(read_json(path).get('source', {}), source):
            raise ValueError(f'{path} was made with {difference}: give another output folder, or delete that one')


def _difference(found: dict, wanted: dict) -> str | None:
    """In what two sources differ, None if in nothing."""
    differing = [f'{key}={found.get(key)!r} (here {wanted[key]!r})' for key in wanted if found.get(key) != wanted[key]]
    return ', '.join(differing) or None


def merge_statistics(records: Sequence[dict]) -> tuple[list[float], list[float]]:
    """Mean and deviation ``(C,)`` of *sampled* latents over all shards.

    A sample is ``mean + exp(logvar / 2) * noise``, so its variance is that of the posterior means plus the mean of the
    posterior variances. Everything is float64, and shards are merged by their means and variances: sums of squares
    would cancel where a channel's mean is large.
    """
    parts = [record['statistics'] for record in records]
    weights = np.array([part['elements'] for part in parts], dtype=np.float64)
    weights = (weights / weights.sum())[:, None]  # (shards, 1)
    means, variances, posterior = (
        np.array([part[key] for part in parts]) for key in ('mean', 'variance_of_mean', 'mean_of_variance')
    )  # (shards, C)
    mean = (weights * means).sum(0)
    return mean.tolist(), np.sqrt((weights * (variances + (means - mean) ** 2 + posterior)).sum(0)).tolist()


def write_manifest(root: Path, records: Sequence[dict], facts: dict) -> dict:
    """Write and return the manifest of a complete folder: the records of all shards in order, and ``facts``.

    Raises:
        ValueError: If no clip was read, or the latents of the shards differ in shape.
    """
    filled = [record for record in records if record['count']]
    skipped = [clip for record in records for clip in record['skipped']]
    if not filled:
        raise ValueError(f'none of {len(skipped)} clips could be read, e.g. {skipped[0]["path"]}')
    shape = filled[0]['latent_shape']
    for record in filled:
        if record['latent_shape'] != shape:
            raise ValueError(
                f'latents of {record["name"]} have shape {record["latent_shape"]}, those of {filled[0]["name"]} '
                f'{shape}: all clips must have one size; resize and crop them in the pipeline'
            )
    mean, std = merge_statistics(filled)
    manifest = {
        'format_version': FORMAT_VERSION,
        **facts,
        'latent_shape': shape,
        'latent_mean': mean,
        'latent_std': std,
        'num_clips': sum(record['count'] for record in filled),
        'shards': [{key: record[key] for key in ('name', 'count', 'bytes', 'sha256')} for record in filled],
        'skipped': skipped,
    }
    write_json(root / MANIFEST, manifest)
    return manifest


def read_manifest(root: str | Path) -> dict:
    """The manifest of a folder of latents.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it cannot be read or has another version.
    """
    path = Path(root) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} not found: latents are complete only with it. Make them with tools/extract_latents.py; where it '
            'was interrupted, the same command again finishes the work'
        )
    manifest = read_json(path)
    version = manifest.get('format_version')
    if version != FORMAT_VERSION:
        raise ValueError(f'{path} has format_version {version!r}, this release reads {FORMAT_VERSION}: extract anew')
    return manifest


def open_shard(path: Path) -> safe_open:
    """A shard, mapped into memory.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return safe_open(path, framework='pt')
    except (OSError, SafetensorError) as error:
        raise ValueError(f'{path} cannot be read ({error}): run tools/extract_latents.py again') from error


def read_entries(path: Path, manifest: dict) -> list[dict]:
    """``dict(row=..., path=..., label=...)`` of each clip of a shard, whose latents stay on disk.

    Raises:
        ValueError: If it cannot be read, or was not made from what the manifest says.
    """
    shard = open_shard(path)
    header = json.loads((shard.metadata() or {}).get(_HEADER, '{}'))
    if difference := _difference(header.get('source', {}), manifest['source']):
        raise ValueError(
            f'{path} does not belong to {MANIFEST}, it was made with {difference}. Put the right file back, or delete '
            'it and run tools/extract_latents.py again'
        )
    labels = shard.get_tensor('label').tolist()
    return [
        {'row': row, 'path': name, 'label': None if label < 0 else label}
        for row, (name, label) in enumerate(zip(header['paths'], labels, strict=True))
    ]


def read_json(path: Path) -> dict:
    """A record or the manifest.

    Raises:
        ValueError: If it is none, naming the file.
    """
    content = files.read_json(path, 'written by tools/extract_latents.py: delete it and run that again')
    _check_names([content, *(content.get('shards') or ())], path)
    return content


def _check_names(records: Sequence[dict], path: Path) -> None:
    """A folder's own shards are read and no others: folders are passed on."""
    for record in records:
        name = record.get('name', shard_name(0))
        if not re.fullmatch(r'shard-\d+\.safetensors', str(name)):
            raise ValueError(f'{path} names {name!r}, which is no shard of this folder')


def write_json(path: Path, value: dict) -> None:
    """Write a JSON file, whole or not at all."""
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(json.dumps(value, indent=1, default=str) + '\n', encoding='utf-8')
    publish(temporary, path)


def _statistics(mean: Tensor, logvar: Tensor) -> dict:
    """Of each channel, float64, over clips, views, time and space."""
    channels = []
    for c in range(mean.shape[2]):  # one at a time: a whole shard in float64 would need several times its memory
        values, variances = mean[:, :, c].double(), logvar[:, :, c].double().exp()
        channels.append((values.mean().item(), values.var(correction=0).item(), variances.mean().item()))
    means, variances_of_mean, means_of_variance = zip(*channels, strict=True)
    return {
        'elements': mean[:, :, 0].numel(),
        'mean': means,
        'variance_of_mean': variances_of_mean,
        'mean_of_variance': means_of_variance,
    }

"""File format of cached latents: shards of posterior moments, one record per shard, and a manifest.

A folder of latents contains

- ``shard-00000.safetensors``, ...: ``mean`` and ``logvar`` ``(E, V, C, t, h, w)`` of ``E`` clips in ``V`` views (1, or
  2 if mirrored clips were encoded too), and int64 ``(E,)`` tensors ``label`` (-1 for none), ``index`` (of the video in
  the dataset) and ``draw`` (number of the clip in its video). The header contains the paths and the shard's source;
- ``shard-00000.json``, ...: size, SHA-256 and statistics of the shard, and sizes and times of its videos. The record
  is written after the shard, so an existing record means that the shard is complete;
- ``manifest.json``: written last, when all shards are complete.
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
# One entry for everything: safetensors writes several entries in random order, which changes the file's digest.
_HEADER = 'pvvae_plugin'


@dataclass(frozen=True)
class LatentEntries:
    """The ``E`` clips of a shard.

    Attributes:
        mean: Posterior means, ``(E, V, C, t, h, w)``.
        logvar: Posterior log variances, ``(E, V, C, t, h, w)``.
        labels: Class per clip, -1 for none.
        indices: Dataset index of the video, per clip.
        draws: Number of the clip in its video, from 0.
        paths: Path of the video, per clip.
    """

    mean: Tensor
    logvar: Tensor
    labels: Sequence[int]
    indices: Sequence[int]
    draws: Sequence[int]
    paths: Sequence[str]


def config_sha256(config: Any) -> str:
    """Return the hex SHA-256 of a config of plain values. Tuples equal lists, and the order of keys is ignored."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def backbone_hash(backbone: dict) -> str:
    """Return the digest of a VAE's config (``model.backbone``), ignoring the entries that only locate its weights."""
    places = ('init_cfg', 'pretrained', 'subfolder', 'download', '_scope_')
    return config_sha256({key: value for key, value in backbone.items() if key not in places})


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f'shard-{number:05d}.safetensors'


def write_shard(
    root: Path,
    number: int,
    entries: LatentEntries | None,
    skipped: Sequence[dict],
    source: dict,
    videos: dict[str, list[int] | None] | None = None,
) -> None:
    """Write a shard and then its record, both atomically.

    Args:
        root: The folder.
        number: Number of the shard.
        entries: Clips of the shard. None if no clip could be read; then only the record is written.
        skipped: One ``dict(index=..., draw=..., path=...)`` per clip that could not be read.
        source: Source of the latents, see :func:`check_source`.
        videos: Files of the clips and their states when they were read, see :func:`~pvvae_plugin.files.file_state`.
    """
    path = root / shard_name(number)
    record: dict[str, Any] = {'name': path.name, 'count': 0, 'skipped': list(skipped), 'source': source}
    if videos is not None:
        record['files'] = videos
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
        temporary.write_bytes(content)  # save_file() creates files that only their owner can read
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
    """Return the record of a shard, or None if it does not exist."""
    path = (root / shard_name(number)).with_suffix('.json')
    return read_json(path) if path.is_file() else None


def shard_problem(root: Path, record: dict, verify: bool) -> str | None:
    """Describe the damage of a record's shard, or return None. The SHA-256 is compared only if ``verify`` is True."""
    path = root / record['name']
    if not record['count']:
        return None
    if not path.is_file():
        return f'{path} is missing'
    if path.stat().st_size != record['bytes']:
        return f'{path} is damaged: it has {path.stat().st_size} bytes, expected {record["bytes"]}'
    if verify and file_sha256(path) != record['sha256']:
        return f'{path} is damaged: its sha256 differs from the recorded one'
    return None


def changed_videos(record: dict) -> list[str] | None:
    """Return the videos of a shard that changed since they were encoded, or None if the record lacks their states."""
    if 'files' not in record:
        return None
    return [path for path, state in record['files'].items() if files.file_state(path) != state]


def check_source(root: Path, source: dict) -> None:
    """Check that a folder has only latents from the same source.

    Args:
        root: The folder.
        source: Digests and settings that determine the latents of this run.

    Raises:
        ValueError: If a record or the manifest has another source, or the folder has other files.
    """
    other = [path.name for path in root.iterdir() if not path.name.startswith(('shard-', '.', MANIFEST))]
    if other:
        raise ValueError(f'{root} has other files ({", ".join(sorted(other)[:3])}): use an empty output folder')
    for path in sorted([*root.glob('shard-*.json'), *root.glob(MANIFEST)]):
        if difference := _difference(read_json(path).get('source', {}), source):
            raise ValueError(f'{path} was made with {difference}: use another output folder, or delete this one')


def _difference(found: dict, wanted: dict) -> str | None:
    """Describe how two sources differ, or return None if they are equal."""
    differing = [f'{key}={found.get(key)!r} (here {wanted[key]!r})' for key in wanted if found.get(key) != wanted[key]]
    return ', '.join(differing) or None


def merge_statistics(records: Sequence[dict]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation ``(C,)`` of *sampled* latents over all shards.

    A sample is ``mean + exp(logvar / 2) * noise``, so its variance is the variance of the posterior means plus the mean
    of the posterior variances. Means and variances of the shards are merged in float64; sums of squares would lose
    precision for channels with a large mean.
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
    """Write and return the manifest of a complete folder, with the records of all shards in order and ``facts``.

    Raises:
        ValueError: If no clip could be read, or the latents of the shards differ in shape.
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
                f'{shape}: all clips must have the same size; resize and crop them in the pipeline'
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
    """Read the manifest of a folder of latents.

    Raises:
        FileNotFoundError: If the folder has no manifest.
        ValueError: If the manifest cannot be read or has another version.
    """
    path = Path(root) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} not found: the latents are missing or incomplete. Run tools/extract_latents.py; to resume an '
            'interrupted extraction, run the same command again'
        )
    manifest = read_json(path)
    version = manifest.get('format_version')
    if version != FORMAT_VERSION:
        raise ValueError(
            f'{path} has format_version {version!r}, but this release reads {FORMAT_VERSION}: extract the latents again'
        )
    return manifest


def open_shard(path: Path) -> safe_open:
    """Open a shard memory-mapped.

    Raises:
        ValueError: If the shard cannot be read.
    """
    try:
        return safe_open(path, framework='pt')
    except (OSError, SafetensorError) as error:
        raise ValueError(f'{path} cannot be read ({error}): run tools/extract_latents.py again') from error


def read_entries(path: Path, manifest: dict) -> list[dict]:
    """Return one ``dict(row=..., path=..., label=...)`` per clip of a shard, without reading its latents.

    Raises:
        ValueError: If the shard cannot be read, or its source differs from the manifest's.
    """
    shard = open_shard(path)
    header = json.loads((shard.metadata() or {}).get(_HEADER, '{}'))
    if difference := _difference(header.get('source', {}), manifest['source']):
        raise ValueError(
            f'{path} does not match {MANIFEST}: it was made with {difference}. Restore the right file, or delete this '
            'one and run tools/extract_latents.py again'
        )
    labels = shard.get_tensor('label').tolist()
    return [
        {'row': row, 'path': name, 'label': None if label < 0 else label}
        for row, (name, label) in enumerate(zip(header['paths'], labels, strict=True))
    ]


def read_json(path: Path) -> dict:
    """Read a record or the manifest.

    Raises:
        ValueError: If the file is not a valid record or manifest.
    """
    content = files.read_json(path, 'written by tools/extract_latents.py: delete it and run that again')
    _check_names([content, *(content.get('shards') or ())], path)
    return content


def _check_names(records: Sequence[dict], path: Path) -> None:
    """Check that records name only shards in the same folder, because folders are shared between users."""
    for record in records:
        name = record.get('name', shard_name(0))
        if not re.fullmatch(r'shard-\d+\.safetensors', str(name)):
            raise ValueError(f'{path} names {name!r}, which is not a shard of this folder')


def write_json(path: Path, value: dict) -> None:
    """Write a JSON file atomically."""
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(json.dumps(value, indent=1, default=str) + '\n', encoding='utf-8')
    publish(temporary, path)


def _statistics(mean: Tensor, logvar: Tensor) -> dict:
    """Compute float64 statistics per channel over clips, views, time and space."""
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

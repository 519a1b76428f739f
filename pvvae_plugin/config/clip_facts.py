"""Clip length, frame size and class names of a config, found without opening a video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from pvvae_plugin.datasets.annotations import read_class_file
from pvvae_plugin.datasets.folders import scan_folder
from pvvae_plugin.datasets.latent_shards import read_manifest
from pvvae_plugin.registry import DATASETS
from pvvae_plugin.temporal import groups_to_frames

SPLITS = ('train', 'val', 'test')


def clip_geometry(
    cfg: Config, num_frames: int | None = None, size: Sequence[int] | None = None
) -> tuple[int, tuple[int, int]]:
    """Return the length and size of a config's training clips, or of its validation or test clips.

    Args:
        cfg: The config.
        num_frames: Number of frames if known; None to look it up.
        size: Height and width in pixels if known; None to look them up.

    Returns:
        Number of frames, and ``(height, width)``.

    Raises:
        ValueError: If the config does not determine them. The message names the missing options.

    Example:
        >>> from pvvae_plugin.config import clip_geometry, read_config
        >>> clip_geometry(read_config('pvvae_demo'))
        (9, (32, 32))
    """
    for dataset in datasets_of(cfg):
        num_frames = num_frames or _length(dataset)
        size = size or frame_size(dataset)
    missing = [name for name, value in (('--num-frames T', num_frames), ('--size H W', size)) if not value]
    if missing:
        raise ValueError(
            f'{cfg.filename} does not set the length or size of its clips (clip_len, size, or a fixed-size crop in the '
            f'pipeline; or existing cached latents); pass {" and ".join(missing)}'
        )
    return num_frames, (size[0], size[1])


def class_names(cfg: Config, num_classes: int | None) -> tuple[str, ...] | None:
    """Return the class names of a config's data, in the order of their labels.

    Args:
        cfg: The config.
        num_classes: Number of classes of the network; None if it is unconditional.

    Returns:
        ``num_classes`` names, or None if the config and the files that it refers to do not provide them.

    Example:
        >>> from pvvae_plugin.config import class_names, read_config
        >>> len(class_names(read_config('dit_demo'), num_classes=7))
        7
    """
    for dataset in datasets_of(cfg):
        try:
            names = _names(dataset)
        except ValueError:  # the folder or file is unfit for training; callers fall back to class numbers
            continue
        if isinstance(names, (list, tuple)) and len(names) == num_classes:
            return tuple(names)
    return None


def frame_size(dataset: dict) -> tuple[int, int] | None:
    """Return the height and width of a dataset's clips after its pipeline, or None if the config does not fix them."""
    if type_name(dataset) == 'LatentDataset':
        manifest = _manifest(dataset)
        return manifest and tuple(side * manifest['spatial_ratio'] for side in manifest['latent_shape'][2:])
    side = dataset.get('size')  # synthetic clips only
    for step in _spatial(dataset):
        # ResizeClip sets the short side only: the other side is known only if the input is square.
        if type_name(step) != 'ResizeClip' or side:
            side = step['size']
    return (side, side) if isinstance(side, int) else None


def spatial_steps(cfg: Config, size: tuple[int, int]) -> list[dict] | None:
    """Return the resize and crop steps of a config's validation clips, or None if they do not produce ``size``.

    Test and training clips are tried next. Random crops are replaced by center crops.
    """
    for dataset in datasets_of(cfg, ('val', 'test', 'train')):
        if (steps := _spatial(dataset)) and frame_size(dataset) == size:
            middle = {'type': 'CenterCropClip'}
            return [{**step, **(middle if type_name(step) == 'RandomCropClip' else {})} for step in steps]
    return None


def frame_interval(cfg: Config) -> int:
    """Return the step in video frames between two frames of a clip."""
    return next((dataset['frame_interval'] for dataset in datasets_of(cfg) if 'frame_interval' in dataset), 1)


def type_name(config: Any) -> str:
    """Return the unqualified class name of the object that a config builds."""
    kind = config.get('type', '') if isinstance(config, dict) else type(config)
    return getattr(kind, '__name__', str(kind)).split('.')[-1]


def datasets_of(cfg: Config, splits: Sequence[str] = SPLITS) -> Iterator[dict]:
    """Yield the dataset configs split by split, including wrapped datasets and the sources of cached latents."""
    pending = [loader['dataset'] for split in splits if (loader := cfg.get(f'{split}_dataloader'))]
    while pending:
        dataset = pending.pop(0)
        yield dataset
        inner = [dataset['dataset']] if 'dataset' in dataset else list(dataset.get('datasets', ()))
        if type_name(dataset) == 'LatentDataset' and (manifest := _manifest(dataset)):
            inner = [manifest['dataset']['config']]  # the clips that were encoded
        pending = inner + pending


def _spatial(dataset: dict) -> list[dict]:
    """Return the pipeline steps that determine the frame size."""
    wanted = ('ResizeClip', 'RandomCropClip', 'CenterCropClip')
    return [step for step in dataset.get('pipeline') or () if type_name(step) in wanted]


def _length(dataset: dict) -> int | None:
    if type_name(dataset) == 'LatentDataset':
        manifest = _manifest(dataset)
        return manifest and groups_to_frames(manifest['latent_shape'][1], manifest['temporal_ratio'])
    return dataset.get('clip_len')


def _names(dataset: dict) -> Sequence[str] | None:
    if given := (dataset.get('metainfo') or {}).get('classes'):
        return given
    root = dataset.get('data_root') or ''
    if class_file := dataset.get('class_file'):
        found = next((p for p in (os.path.join(root, class_file), class_file) if os.path.isfile(p)), None)
        return found and read_class_file(found)
    if type_name(dataset) == 'VideoDataset' and not dataset.get('ann_file') and os.path.isdir(root):
        return scan_folder(root, None, images=dataset.get('clip_len') == 1).classes
    kind = DATASETS.get(dataset['type']) if isinstance(dataset.get('type'), str) else dataset.get('type')
    return getattr(kind, 'METAINFO', {}).get('classes')


def _manifest(dataset: dict) -> dict | None:
    """Return the manifest of cached latents, or None if they are not on this machine."""
    try:
        return read_manifest(dataset['data_root'])
    except FileNotFoundError:
        return None

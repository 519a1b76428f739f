"""What a config says of its clips, told without opening a video: length, size, names of the classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from pvvae_plugin.datasets.annotations import read_class_file, scan_folder
from pvvae_plugin.datasets.latent_shards import read_manifest
from pvvae_plugin.registry import DATASETS
from pvvae_plugin.temporal import groups_to_frames

SPLITS = ('train', 'val', 'test')


def clip_geometry(
    cfg: Config, num_frames: int | None = None, size: Sequence[int] | None = None
) -> tuple[int, tuple[int, int]]:
    """Return length and size of the clips that a config trains on, or else validates on.

    Args:
        cfg: The config.
        num_frames: Frames, where they are known; None to find them.
        size: Height and width in pixels, where they are known; None to find them.

    Returns:
        Frames, and height and width.

    Raises:
        ValueError: If the config does not tell, saying what to give.

    Example:
        >>> from pvvae_plugin.config import clip_geometry, read_config
        >>> clip_geometry(read_config('pvvae_demo'))
        (9, (32, 32))
    """
    for dataset in _datasets(cfg):
        num_frames = num_frames or _length(dataset)
        size = size or frame_size(dataset)
    missing = [name for name, value in (('--num-frames T', num_frames), ('--size H W', size)) if not value]
    if missing:
        raise ValueError(
            f'{cfg.filename} does not tell how long or how large its clips are (clip_len, size, or a crop of a fixed '
            f'size in the pipeline; or cached latents that are there): give {" and ".join(missing)}'
        )
    return num_frames, (size[0], size[1])


def class_names(cfg: Config, num_classes: int | None) -> tuple[str, ...] | None:
    """Return the class names of a config's data, in the order of their labels.

    Args:
        cfg: The config.
        num_classes: How many the network knows; None for an unconditional one.

    Returns:
        As many names, or None where the config and the files it points to do not give them.

    Example:
        >>> from pvvae_plugin.config import class_names, read_config
        >>> len(class_names(read_config('dit_demo'), num_classes=7))
        7
    """
    for dataset in _datasets(cfg):
        try:
            names = _names(dataset)
        except ValueError:  # of a folder or file that is not as training would need it; numbers do as well
            continue
        if isinstance(names, (list, tuple)) and len(names) == num_classes:
            return tuple(names)
    return None


def frame_size(dataset: dict) -> tuple[int, int] | None:
    """Height and width of a data set's clips after its pipeline, None where the config does not settle them."""
    if type_name(dataset) == 'LatentDataset':
        manifest = _manifest(dataset)
        return manifest and tuple(side * manifest['spatial_ratio'] for side in manifest['latent_shape'][2:])
    side = dataset.get('size')  # of clips that are drawn, not read
    for step in _spatial(dataset):
        # Resizing sets the short side; the other one follows only of a square.
        if type_name(step) != 'ResizeClip' or side:
            side = step['size']
    return (side, side) if isinstance(side, int) else None


def spatial_steps(cfg: Config, size: tuple[int, int]) -> list[dict] | None:
    """The resizing and cropping of a config's validation clips, if it leads to frames of ``size``; else None.

    Without validation clips it is that of the others. Random crops become crops of the middle.
    """
    for dataset in _datasets(cfg, ('val', 'test', 'train')):
        if (steps := _spatial(dataset)) and frame_size(dataset) == size:
            middle = {'type': 'CenterCropClip'}
            return [{**step, **(middle if type_name(step) == 'RandomCropClip' else {})} for step in steps]
    return None


def frame_interval(cfg: Config) -> int:
    """Every how many frames of a video the clips of a config take one."""
    return next((dataset['frame_interval'] for dataset in _datasets(cfg) if 'frame_interval' in dataset), 1)


def type_name(config: Any) -> str:
    """The bare name of what a config builds."""
    kind = config.get('type', '') if isinstance(config, dict) else type(config)
    return getattr(kind, '__name__', str(kind)).split('.')[-1]


def _datasets(cfg: Config, splits: Sequence[str] = SPLITS) -> Iterator[dict]:
    """Configs of data sets, split by split, with those inside of wrappers and behind cached latents."""
    pending = [loader['dataset'] for split in splits if (loader := cfg.get(f'{split}_dataloader'))]
    while pending:
        dataset = pending.pop(0)
        yield dataset
        inner = [dataset['dataset']] if 'dataset' in dataset else list(dataset.get('datasets', ()))
        if type_name(dataset) == 'LatentDataset' and (manifest := _manifest(dataset)):
            inner = [manifest['dataset']['config']]  # the clips that were encoded
        pending = inner + pending


def _spatial(dataset: dict) -> list[dict]:
    """The steps of a pipeline that settle the size."""
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
        return scan_folder(root, None, images=dataset.get('clip_len') == 1)[1]
    kind = DATASETS.get(dataset['type']) if isinstance(dataset.get('type'), str) else dataset.get('type')
    return getattr(kind, 'METAINFO', {}).get('classes')


def _manifest(dataset: dict) -> dict | None:
    """Of cached latents; None where they are not on this machine."""
    try:
        return read_manifest(dataset['data_root'])
    except FileNotFoundError:
        return None

"""Dataset of cached latents."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from pvvae_plugin.registry import DATASETS
from pvvae_plugin.structures import VideoDataSample
from pvvae_plugin.temporal import groups_to_frames

from .clip_dataset import ClipDataset
from .latent_shards import MANIFEST, open_shard, read_entries, read_manifest, shard_problem
from .transforms.packing import META_KEYS


@DATASETS.register_module()
class LatentDataset(ClipDataset):
    """Dataset of posterior moments that ``tools/extract_latents.py`` encoded once and cached in a folder.

    A sample is ``dict(inputs=..., data_samples=...)``. ``inputs`` are float32 moments ``(2C, t, h, w)``: the posterior
    mean, then its logvar, in the raw scale of the VAE. ``data_samples`` is a :class:`VideoDataSample` with ``label``,
    ``path`` and ``draw_key``. If mirrored clips were encoded too, the draw key chooses one of the two views in
    training, and ``test_mode`` uses the original. Each extracted clip of a video is a separate sample.

    Only labels and paths are read on construction. Each process memory-maps the latents that it uses.

    Args:
        data_root: The folder.
        vae_sha256: Required SHA-256 of the VAE's checkpoint. None accepts any.
        backbone_hash: Required digest of the VAE's config, see :func:`latent_shards.backbone_hash`. None accepts any.
        verify: If True, read every shard on construction and compare its SHA-256. If False, compare only its size.
        **kwargs: ``test_mode``, ``seed``, ``indices``, ... of :class:`ClipDataset`, except ``pipeline``.

    Attributes:
        manifest (dict): Manifest of the folder. ``metainfo`` contains its latent statistics ``latent_mean`` and
            ``latent_std`` (``(C,)``, of sampled latents), ``classes`` and ``num_classes``.

    Raises:
        FileNotFoundError: If the folder has no manifest.
        ValueError: If a shard is missing or damaged, or the latents belong to another VAE.

    Example:
        >>> # First: python tools/extract_latents.py configs/pvvae_demo.py work_dirs/quickstart latents
        >>> from pvvae_plugin.registry import DATASETS
        >>> dataset = DATASETS.build(dict(type='LatentDataset', data_root='latents'))  # doctest: +SKIP
        >>> dataset[0]['inputs'].shape  # mean and logvar of 32 channels  # doctest: +SKIP
        torch.Size([64, 3, 4, 4])
    """

    def __init__(
        self,
        data_root: str | os.PathLike,
        vae_sha256: str | None = None,
        backbone_hash: str | None = None,
        verify: bool = False,
        **kwargs: Any,
    ) -> None:
        root = Path(data_root)
        self.manifest = read_manifest(root)
        for name, key, wanted in (
            ('vae_sha256', 'checkpoint_sha256', vae_sha256),
            ('backbone_hash', 'backbone_hash', backbone_hash),
        ):
            found = self.manifest['source'][key]
            if wanted not in (None, found):
                raise ValueError(
                    f'{root / MANIFEST} belongs to another VAE: {key}={found!r} (checkpoint '
                    f'{self.manifest["checkpoint"]}), expected {name}={wanted!r}. Extract the latents with the VAE '
                    'that will decode them'
                )
        problems = [shard_problem(root, record, verify) for record in self.manifest['shards']]
        if any(problems):
            raise ValueError(
                f'{"; ".join(filter(None, problems))}. Run tools/extract_latents.py again with the same arguments to '
                'extract these shards again'
            )
        self._open: dict[str, safe_open] = {}
        self._open_in = os.getpid()
        clip_len = groups_to_frames(self.manifest['latent_shape'][1], self.manifest['temporal_ratio'])
        super().__init__(clip_len=clip_len, pipeline=(pack_moments,), data_root=os.fspath(data_root), **kwargs)
        self.frame_interval = self.manifest.get('dataset', {}).get('config', {}).get('frame_interval', 1)

    def load_data_list(self) -> list[dict]:
        for key in ('classes', 'num_classes', 'latent_mean', 'latent_std'):
            self._metainfo.setdefault(key, self.manifest[key])
        return [
            {'shard': record['name'], **entry}
            for record in self.manifest['shards']
            for entry in read_entries(Path(self.data_root) / record['name'], self.manifest)
        ]

    def load_clip(self, info: dict, rng: np.random.Generator) -> Tensor:
        """Return float32 moments ``(2C, t, h, w)`` of one view of a clip."""
        views = 2 if self.manifest['source']['flip'] else 1
        view = 0 if self.test_mode else int(rng.integers(views))
        shard = self._shard(info['shard'])
        mean, logvar = (shard.get_slice(name)[info['row'], view] for name in ('mean', 'logvar'))
        return torch.cat((mean, logvar)).float()

    def _check_frames(self, frames: Tensor, path: str) -> None:
        """Skip the check: these are moments, and their shapes were checked when the shards were written."""

    def _shard(self, name: str) -> safe_open:
        # Forked workers must open the shards themselves, not share their parent's file handles.
        if self._open_in != os.getpid():
            self._open, self._open_in = {}, os.getpid()
        if name not in self._open:
            self._open[name] = open_shard(Path(self.data_root) / name)
        return self._open[name]

    def __getstate__(self) -> dict:
        # Open files cannot be pickled (for spawned workers) or copied (for subsets).
        return {**self.__dict__, '_open': {}}


def pack_moments(results: dict) -> dict:
    """Pack the results of :class:`ClipDataset` into a sample of :class:`LatentDataset`."""
    metainfo = {key: results[key] for key in META_KEYS if key in results and key != 'fps'}
    return {'inputs': results['frames'], 'data_samples': VideoDataSample(metainfo=metainfo)}

"""The dataset of cached latents."""

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
    """Posterior moments of clips that a VAE encoded once, from a folder of ``tools/extract_latents.py``.

    A sample is ``dict(inputs=..., data_samples=...)``: moments float32 ``(2C, t, h, w)``, the posterior's mean and then
    its logvar in the raw scale of the VAE, and a :class:`VideoDataSample` with ``label``, ``path`` and ``draw_key``.
    Where mirrored clips were encoded too, training takes either view, chosen by the draw key; ``test_mode`` takes the
    clip as it is. Several clips of one video are samples of their own.

    Nothing but labels and paths is read at the start. Latents are mapped into memory by the process that uses them.

    Args:
        data_root: The folder.
        vae_sha256: Digest that the VAE's checkpoint must have had; None takes any.
        backbone_hash: Digest that the VAE's config must have had, see :func:`latent_shards.backbone_hash`; None takes
            any.
        verify: Read every shard once at the start and compare its sha256; otherwise its size alone.
        **kwargs: ``test_mode``, ``seed``, ``indices``, ... of :class:`ClipDataset`; no pipeline.

    Attributes:
        manifest (dict): The folder's manifest. Its statistics are in ``metainfo`` as well: ``latent_mean``,
            ``latent_std`` (``(C,)``, of sampled latents), beside ``classes`` and ``num_classes``.

    Raises:
        FileNotFoundError: If there is no manifest.
        ValueError: If a shard is missing or damaged, or the latents are of another VAE.

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
                    f'{root / MANIFEST} is of another VAE: {key}={found!r} (checkpoint '
                    f'{self.manifest["checkpoint"]}), but {name}={wanted!r} is wanted. Extract latents with the VAE '
                    'that is to decode them'
                )
        problems = [shard_problem(root, record, verify) for record in self.manifest['shards']]
        if any(problems):
            raise ValueError(
                f'{"; ".join(filter(None, problems))}. Run tools/extract_latents.py again with the same arguments: it '
                'makes what is missing'
            )
        self._open: dict[str, safe_open] = {}
        self._open_in = os.getpid()
        clip_len = groups_to_frames(self.manifest['latent_shape'][1], self.manifest['temporal_ratio'])
        super().__init__(clip_len=clip_len, pipeline=(pack_moments,), data_root=os.fspath(data_root), **kwargs)

    def load_data_list(self) -> list[dict]:
        for key in ('classes', 'num_classes', 'latent_mean', 'latent_std'):
            self._metainfo.setdefault(key, self.manifest[key])
        return [
            {'shard': record['name'], **entry}
            for record in self.manifest['shards']
            for entry in read_entries(Path(self.data_root) / record['name'], self.manifest)
        ]

    def load_clip(self, info: dict, rng: np.random.Generator) -> Tensor:
        """Moments float32 ``(2C, t, h, w)`` of one view of a clip."""
        views = 2 if self.manifest['source']['flip'] else 1
        view = 0 if self.test_mode else int(rng.integers(views))
        shard = self._shard(info['shard'])
        mean, logvar = (shard.get_slice(name)[info['row'], view] for name in ('mean', 'logvar'))
        return torch.cat((mean, logvar)).float()

    def _check_frames(self, frames: Tensor, path: str) -> None:
        """Moments are no frames; that shards agree in shape was seen to when they were written."""

    def _shard(self, name: str) -> safe_open:
        # A forked worker opens shards itself and does not go on with its parent's.
        if self._open_in != os.getpid():
            self._open, self._open_in = {}, os.getpid()
        if name not in self._open:
            self._open[name] = open_shard(Path(self.data_root) / name)
        return self._open[name]

    def __getstate__(self) -> dict:
        # Open files can be neither pickled, for workers that are spawned, nor copied, for subsets.
        return {**self.__dict__, '_open': {}}


def pack_moments(results: dict) -> dict:
    """What :class:`LatentDataset` gives, of what :class:`ClipDataset` collects."""
    metainfo = {key: results[key] for key in META_KEYS if key in results and key != 'fps'}
    return {'inputs': results['frames'], 'data_samples': VideoDataSample(metainfo=metainfo)}

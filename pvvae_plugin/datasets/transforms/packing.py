"""From a pipeline's dict to what a model takes."""

from __future__ import annotations

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from pvvae_plugin.registry import TRANSFORMS
from pvvae_plugin.structures import VideoDataSample

META_KEYS = ('path', 'fps', 'label', 'draw_key', 'num_observed_groups', 'substituted_path')


@TRANSFORMS.register_module()
class PackClip(BaseTransform):
    """Ends a pipeline: ``dict(inputs=..., data_samples=...)``.

    ``inputs`` is a uint8 tensor ``(3, T, H, W)``, a quarter of the bytes to the device that floats would be; the data
    preprocessor scales it to [-1, 1] there. ``data_samples`` is a :class:`VideoDataSample` with what the results hold
    of its meta information.
    """

    def transform(self, results: dict) -> dict:
        frames = np.ascontiguousarray(results['frames'].transpose(3, 0, 1, 2))  # (3, T, H, W)
        metainfo = {key: results[key] for key in META_KEYS if key in results}
        return {'inputs': torch.from_numpy(frames), 'data_samples': VideoDataSample(metainfo=metainfo)}

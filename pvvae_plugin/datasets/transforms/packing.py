"""From a pipeline's dict to what a model takes."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform

from pvvae_plugin.registry import TRANSFORMS
from pvvae_plugin.structures import VideoDataSample

META_KEYS = ('path', 'fps', 'label', 'draw_key', 'observed_groups', 'substituted_path', 'skipped_clips')


@TRANSFORMS.register_module()
class PackClip(BaseTransform):
    """End a pipeline: return ``dict(inputs=..., data_samples=...)``.

    ``inputs`` is a uint8 tensor ``(3, T, H, W)``, a quarter of the bytes to the device that floats would be; the data
    preprocessor scales it to [-1, 1] there. ``data_samples`` is a :class:`VideoDataSample` with what the results hold
    of its meta information.

    Example:
        >>> from pvvae_plugin.registry import TRANSFORMS
        >>> pack = TRANSFORMS.build(dict(type='PackClip'))
        >>> packed = pack(dict(frames=np.zeros((9, 32, 48, 3), np.uint8), path='a.mp4', label=3))
        >>> packed['inputs'].shape, packed['data_samples'].label
        (torch.Size([3, 9, 32, 48]), 3)
    """

    def transform(self, results: dict) -> dict:
        inputs = torch.from_numpy(_channels_first(results['frames']))
        metainfo = {key: results[key] for key in META_KEYS if key in results}
        return {'inputs': inputs, 'data_samples': VideoDataSample(metainfo=metainfo)}


def _channels_first(frames: np.ndarray) -> np.ndarray:
    """``(T, H, W, 3)`` to ``(3, T, H, W)``: OpenCV's loops take a fraction of the time of NumPy's transposed copy."""
    planes = np.empty((3, *frames.shape[:3]), np.uint8)
    for frame, targets in zip(frames, planes.swapaxes(0, 1), strict=True):
        if frame.strides[1] < 0:  # mirrored
            frame = cv2.flip(frame[:, ::-1], 1)
        cv2.split(frame, list(targets))
    return planes

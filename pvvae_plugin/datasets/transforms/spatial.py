"""Spatial transforms: resizing, cropping and mirroring, the same for all frames of a clip."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from pvvae_plugin.registry import TRANSFORMS

from .base import check_probability, rng_of


@TRANSFORMS.register_module()
class ResizeClip(BaseTransform):
    """Resize the short side of a clip to ``size``, keeping the aspect ratio.

    Shrinks by area averaging, which does not alias, and enlarges bilinearly. The network, not this transform, checks
    that sizes are divisible by its spatial ratio.

    Args:
        size: Pixels; ``results['size']`` overrides it.

    Example:
        >>> from pvvae_plugin.registry import TRANSFORMS
        >>> resize = TRANSFORMS.build(dict(type='ResizeClip', size=128))
        >>> resize(dict(frames=np.zeros((9, 240, 320, 3), np.uint8)))['frames'].shape
        (9, 128, 171, 3)
    """

    def __init__(self, size: int) -> None:
        self.size = _positive(size)

    def transform(self, results: dict) -> dict:
        frames = results['frames']  # (T, H, W, 3)
        size = results.get('size') or self.size
        height, width = frames.shape[1:3]
        if min(height, width) != size:
            scale = size / min(height, width)
            # max() makes the short side exactly `size` despite rounding.
            shape = (max(size, round(width * scale)), max(size, round(height * scale)))
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            resized = np.empty((len(frames), shape[1], shape[0], 3), np.uint8)
            for frame, target in zip(frames, resized, strict=True):
                cv2.resize(frame, shape, dst=target, interpolation=method)
            results['frames'] = resized
        return results


class _CropClip(BaseTransform):
    """Base class of square crops.

    Args:
        size: Pixels; ``results['size']`` overrides it.
    """

    def __init__(self, size: int) -> None:
        self.size = _positive(size)

    def transform(self, results: dict) -> dict:
        """Crop ``results['frames']``.

        Raises:
            ValueError: If the frames are smaller than the crop.
        """
        frames = results['frames']  # (T, H, W, 3)
        size = results.get('size') or self.size
        room_y, room_x = frames.shape[1] - size, frames.shape[2] - size
        if room_y < 0 or room_x < 0:
            raise ValueError(
                f'a crop of {size} x {size} does not fit into frames of {frames.shape[1]} x {frames.shape[2]} '
                f'({results.get("path", "no path")}): add dict(type="ResizeClip", size={size}) before it'
            )
        top, left = self._corner(room_y, room_x, results)
        results['frames'] = frames[:, top : top + size, left : left + size]
        return results

    def _corner(self, room_y: int, room_x: int, results: dict) -> tuple[int, int]:
        raise NotImplementedError


@TRANSFORMS.register_module()
class RandomCropClip(_CropClip):
    """Crop a square at a random position, the same in every frame.

    Args:
        size: Pixels; ``results['size']`` overrides it.

    Example:
        >>> from pvvae_plugin.registry import TRANSFORMS
        >>> crop = TRANSFORMS.build(dict(type='RandomCropClip', size=128))
        >>> crop(dict(frames=np.zeros((9, 240, 320, 3), np.uint8)))['frames'].shape
        (9, 128, 128, 3)
    """

    def _corner(self, room_y: int, room_x: int, results: dict) -> tuple[int, int]:
        rng = rng_of(results)
        return int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))


@TRANSFORMS.register_module()
class CenterCropClip(_CropClip):
    """Crop the central square.

    Args:
        size: Pixels; ``results['size']`` overrides it.

    Example:
        >>> from pvvae_plugin.registry import TRANSFORMS
        >>> crop = TRANSFORMS.build(dict(type='CenterCropClip', size=2))
        >>> frames = np.arange(6, dtype=np.uint8).reshape(1, 1, 6, 1).repeat(2, axis=1).repeat(3, axis=3)
        >>> crop(dict(frames=frames))['frames'][0, 0, :, 0].tolist()  # out of columns 0 to 5
        [2, 3]
    """

    def _corner(self, room_y: int, room_x: int, results: dict) -> tuple[int, int]:
        return room_y // 2, room_x // 2


@TRANSFORMS.register_module()
class RandomFlipClip(BaseTransform):
    """Mirror a whole clip left to right with probability ``prob``.

    Args:
        prob: Probability of mirroring.

    Example:
        >>> from pvvae_plugin.registry import TRANSFORMS
        >>> flip = TRANSFORMS.build(dict(type='RandomFlipClip', prob=1.0))
        >>> frames = np.arange(3, dtype=np.uint8).reshape(1, 1, 3, 1).repeat(3, axis=3)
        >>> flip(dict(frames=frames))['frames'][0, 0, :, 0].tolist()
        [2, 1, 0]
    """

    def __init__(self, prob: float = 0.5) -> None:
        check_probability('prob', prob)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        if rng_of(results).random() < self.prob:
            results['frames'] = results['frames'][:, :, ::-1]
        return results


def _positive(size: int) -> int:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f'size must be a positive number of pixels, got {size!r}')
    return size

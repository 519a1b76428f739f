"""Backends of MMEngine's visualizer: videos in TensorBoard, and logs that survive a full disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
from mmengine.visualization import BaseVisBackend, LocalVisBackend, TensorboardVisBackend, Visualizer
from mmengine.visualization.vis_backend import force_init_env

from pvvae_plugin.files import without_space
from pvvae_plugin.registry import VISBACKENDS

from .video_files import encode_gif

WRITERS = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'add_video', 'close')

B = TypeVar('B', bound=type[BaseVisBackend])


def goes_on_without_space(backend: B) -> B:
    """Make the writing methods of a backend log a full disk instead of raising. The next call reopens the files."""
    for name in WRITERS:
        if hasattr(backend, name):
            setattr(backend, name, _guarded(getattr(backend, name)))
    return backend


def _guarded(method: Callable[..., None]) -> Callable[..., None]:
    @wraps(method)
    def write(self: BaseVisBackend, *args: Any, **kwargs: Any) -> None:
        with without_space(f'logs of {type(self).__name__}'):
            try:
                method(self, *args, **kwargs)
            except OSError:
                # TensorBoard's writer thread has died and would raise its error again for every value.
                self._env_initialized = False
                raise

    return write


@VISBACKENDS.register_module()
@goes_on_without_space
class CurvesVisBackend(LocalVisBackend):
    """MMEngine's ``LocalVisBackend`` (curves as JSON lines in the work directory) that survives a full disk.

    Example:
        >>> from pathlib import Path
        >>> from pvvae_plugin.registry import VISBACKENDS
        >>> backend = VISBACKENDS.build(dict(type='CurvesVisBackend', save_dir='curves'))
        >>> backend.add_scalar('loss', 0.5, step=10)
        >>> Path('curves/scalars.json').read_text().strip()
        '{"loss": 0.5, "step": 10}'
    """


@VISBACKENDS.register_module()
@goes_on_without_space
class VideoTensorboardVisBackend(TensorboardVisBackend):
    """MMEngine's TensorBoard backend with :meth:`add_video`. A full disk does not stop a run.

    Torch's own ``add_video`` writes nothing unless moviepy is installed. This one writes an image summary that contains
    a GIF, which the browser plays.

    Args:
        save_dir: Directory of the event files.

    Example:
        >>> import os
        >>> from pvvae_plugin.registry import VISBACKENDS
        >>> backend = VISBACKENDS.build(dict(type='VideoTensorboardVisBackend', save_dir='events'))
        >>> backend.add_video('sample', np.zeros((5, 32, 32, 3), np.uint8), step=10)
        >>> backend.close()
        >>> len(os.listdir('events'))  # tensorboard --logdir events
        1
    """

    @force_init_env
    def add_video(self, name: str, frames: np.ndarray, step: int = 0, fps: float = 8, **kwargs: Any) -> None:
        """Write an animated image.

        Args:
            name: Tag of the summary.
            frames: uint8 ``(T, H, W, 3)``.
            step: Global step.
            fps: Frames per second, at most 50.
            **kwargs: Unused. MMEngine's visualizer passes its keyword arguments to every backend.

        Raises:
            ValueError: If ``frames`` has another shape or dtype, or ``fps`` is out of range.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        image = Summary.Image(
            height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=encode_gif(frames, fps)
        )
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self.experiment.file_writer.add_summary(summary, step)


def add_to_tensorboard(
    visualizer: Visualizer, name: str, strip: np.ndarray, panels: np.ndarray, step: int, fps: float
) -> None:
    """Add a strip to every TensorBoard backend of a run, and its animation to backends that support videos.

    Args:
        visualizer: Visualizer of the run.
        name: Tag of the images, below ``vis`` and ``vis_animated``.
        strip: uint8 ``(H, W, 3)``.
        panels: uint8 ``(T, H', W', 3)``.
        step: Global step.
        fps: Frames per second of the animation.
    """
    for backend in visualizer._vis_backends.values():  # MMEngine looks backends up only by a user-defined name
        if isinstance(backend, TensorboardVisBackend):
            backend.add_image(f'vis/{name}', strip, step)
        if isinstance(backend, VideoTensorboardVisBackend):
            backend.add_video(f'vis_animated/{name}', panels, step, fps)

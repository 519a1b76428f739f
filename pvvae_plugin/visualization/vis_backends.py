"""Backends of MMEngine's visualizer: videos in TensorBoard, and logging that survives a full disk."""

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
    """Let the writing methods of a backend report a full disk and return; the next one opens its files anew."""
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
                # TensorBoard writes in a thread, which has ended; its error would come again with every value.
                self._env_initialized = False
                raise

    return write


@VISBACKENDS.register_module()
@goes_on_without_space
class CurvesVisBackend(LocalVisBackend):
    """MMEngine's ``LocalVisBackend``, curves as JSON lines in the work directory; a full disk does not stop it.

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
    """mmengine's TensorBoard backend with :meth:`add_video`.

    Torch's own ``add_video`` writes nothing unless moviepy is installed. TensorBoard shows an image summary as the
    browser would, so a GIF inside one plays. A full disk does not stop it.

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
            fps: Frames a second, at most 50.
            **kwargs: Unused; mmengine's backends take whatever the visualizer hands on.

        Raises:
            ValueError: If the frames' shape or type or ``fps`` is wrong.
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
    """Give every TensorBoard backend of a run a strip, and its animation too where the backend takes one.

    Args:
        visualizer: The run's.
        name: Tag of the pictures, below ``vis`` and ``vis_animated``.
        strip: uint8 ``(H, W, 3)``.
        panels: uint8 ``(T, H', W', 3)``.
        step: Global step.
        fps: Frames a second of the animation.
    """
    for backend in visualizer._vis_backends.values():  # mmengine finds backends only by a name users choose
        if isinstance(backend, TensorboardVisBackend):
            backend.add_image(f'vis/{name}', strip, step)
        if isinstance(backend, VideoTensorboardVisBackend):
            backend.add_video(f'vis_animated/{name}', panels, step, fps)

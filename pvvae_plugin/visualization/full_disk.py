"""Backends of MMEngine's visualizer that a full disk does not stop, and the run with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from mmengine.visualization import BaseVisBackend, LocalVisBackend

from pvvae_plugin.files import without_space
from pvvae_plugin.registry import VISBACKENDS

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
    """MMEngine's ``LocalVisBackend``, curves as lines of JSON in the work directory, that a full disk does not stop."""

"""Video output: clips as files, in the format of the file's extension."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pvvae_plugin.files import write_atomically
from pvvae_plugin.visualization import write_gif, write_video
from pvvae_plugin.visualization.video_files import MAX_GIF_FPS

ENDINGS = ('.webm', '.gif', '.npy', '.png')
MIN_FPS, MAX_FPS = 0.1, 240


def check_output(path: str | Path, size: Sequence[int] | None = None, fps: float | None = None) -> Path:
    """Check that :func:`write_clip` can write a file, and create its folder.

    Args:
        path: The file.
        size: Height and width of the clip, if known.
        fps: Frames per second, if known.

    Raises:
        OSError: If the folder cannot be created.
        ValueError: If the extension is not supported, or the format does not allow ``size`` or ``fps``.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f'the output file must end in one of {", ".join(ENDINGS)}, got {path.name!r}')
    if size and path.suffix.lower() == '.webm' and any(side % 2 for side in size):
        raise ValueError(f'a .webm needs an even height and width, but the clip is {size[0]} x {size[1]}: write a .gif')
    if fps is not None and not MIN_FPS <= fps <= MAX_FPS:
        raise ValueError(f'fps must be in [{MIN_FPS}, {MAX_FPS}], got {fps}')
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_clip(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write a clip as a video, an array or a row of images.

    Args:
        path: File ending in ``.webm``, ``.gif``, ``.npy`` or ``.png`` (frames side by side).
        frames: The clip, uint8 ``(T, H, W, 3)``.
        fps: Frames per second of a video; a GIF plays at most 50.

    Raises:
        ValueError: If the extension is not supported, or the format does not allow these frames.

    Example:
        >>> import os
        >>> from pvvae_plugin.apis import write_clip
        >>> frames = np.zeros((9, 32, 48, 3), np.uint8)
        >>> for ending in ('webm', 'gif', 'npy', 'png'):
        ...     write_clip(f'clip.{ending}', frames, fps=8)
        >>> sorted(os.listdir())
        ['clip.gif', 'clip.npy', 'clip.png', 'clip.webm']
    """
    ending = check_output(path, fps=fps).suffix.lower()
    if ending == '.gif':
        write_gif(path, frames, min(fps, MAX_GIF_FPS))
    elif ending == '.webm':
        write_video(path, frames, fps)
    else:
        buffer = io.BytesIO()
        if ending == '.npy':
            np.save(buffer, frames, allow_pickle=False)
        else:
            Image.fromarray(np.concatenate(list(frames), axis=1)).save(buffer, 'PNG')
        write_atomically(path, buffer.getvalue())

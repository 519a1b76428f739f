"""Files that clips are taken from, one each: which there are, whether they will do, and their first frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pvvae_plugin.datasets import ClipError, open_video
from pvvae_plugin.datasets.readers import is_video
from pvvae_plugin.temporal import frames_to_groups

from .video_input import read_video, stream_frames

ARRAY = '.npy'


def find_videos(paths: Sequence[str | Path], num: int | None = None) -> list[Path]:
    """Files, and the videos and ``.npy`` arrays at any depth of folders.

    Args:
        paths: Files and folders.
        num: At most so many, evenly spread; None for all.

    Raises:
        FileNotFoundError: If there is nothing at a path.
        ValueError: If a folder holds none.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(f for f in path.rglob('*') if is_video(f.name) or f.suffix == ARRAY)
            if not found:
                raise ValueError(f'no videos in {path}')
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise FileNotFoundError(f'no file or folder {path}')
    files = list(dict.fromkeys(files))
    if num is None or num >= len(files):
        return files
    return [files[i * len(files) // num] for i in range(num)]


def check_lengths(files: Sequence[Path], num_frames: int, temporal_ratio: int) -> None:
    """Refuse, before long work, files that cannot be opened or are too short for a clip.

    Args:
        files: Videos and arrays.
        num_frames: ``T``, ``1 + k * p_t`` with ``k`` at least 1.
        temporal_ratio: ``p_t``.

    Raises:
        ValueError: If ``num_frames`` is no such length, or files do not give it, naming the first few.
    """
    if frames_to_groups(num_frames, temporal_ratio) < 2:
        raise ValueError(f'one latent frame has no change: take at least {1 + temporal_ratio} frames')
    problems = []
    for file in files:
        try:
            length = read_video(file)[0].shape[2] if file.suffix == ARRAY else len(open_video(os.fspath(file)))
        except (ClipError, ValueError) as error:
            problems.append(str(error) if str(file) in str(error) else f'{file}: {error}')
            continue
        if length < num_frames:
            problems.append(f'{file}: {length} frames, {num_frames} are needed')
    if problems:
        more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
        raise ValueError(f'{len(problems)} of {len(files)} files give no clip: {"; ".join(problems[:3])}{more}')


def read_first_clip(file: Path, num_frames: int, size: tuple[int, int] | None = None) -> Tensor:
    """The first frames of a file, ``(1, 3, T, H, W)`` in [-1, 1].

    Args:
        file: Video or array.
        num_frames: ``T``.
        size: Height and width; frames are resized to cover it and the middle is kept. None for the file's own.
    """
    if file.suffix == ARRAY:
        return read_video(file, size)[0][:, :, :num_frames]
    return torch.stack(list(stream_frames(file, size, num_frames)), dim=2)

"""Video input: files, arrays and tensors as the tensors that a VAE takes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from torch import Tensor

from pvvae_plugin.datasets import ClipError, iterate_frames, open_video
from pvvae_plugin.datasets.folders import describe_left_out, list_left_out
from pvvae_plugin.datasets.readers.base import is_video
from pvvae_plugin.functional.conversion import as_video, check_value_range, cover
from pvvae_plugin.safe_globals import load_array_safely
from pvvae_plugin.temporal import frames_to_groups

ARRAY = '.npy'
Source = str | Path | np.ndarray | Tensor


def read_video(
    source: Source, size: tuple[int, int] | None = None, max_frames: int | None = None
) -> tuple[Tensor, float]:
    """Read a video from a path, an array or a tensor.

    Args:
        source: Path of a video, an image or a ``.npy`` array; an array, uint8 ``(T, H, W, 3)`` or ``(H, W, 3)``; or a
            float tensor in [-1, 1], ``(3, T, H, W)`` or ``(1, 3, T, H, W)``.
        size: Height and width. Frames are resized to cover it and cropped at the center. None keeps the source's size.
        max_frames: Read at most this many frames from the start.

    Returns:
        ``(1, 3, T, H, W)`` in [-1, 1], and the frames per second of a file (0 if unknown).

    Raises:
        ClipError: If a file cannot be read.
        ValueError: If the source has another type or shape, or its values are out of range.

    Example:
        >>> from pvvae_plugin.apis import read_video
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> video, fps = read_video('clip.webm', size=(32, 32), max_frames=9)
        >>> video.shape, fps
        (torch.Size([1, 3, 9, 32, 32]), 8.0)
    """
    if size is not None:
        check_size(size)
    if isinstance(source, Tensor):
        return _check_tensor(source, size)[:, :, :max_frames], 0.0
    fps = 0.0
    if not isinstance(source, np.ndarray):
        path = os.fspath(source)
        if path.lower().endswith('.npy'):
            source = _load_array(path)
        else:
            reader = open_video(path)
            num_frames = len(reader) if max_frames is None else min(max_frames, len(reader))
            frames = iterate_frames(path, num_frames)  # resized one at a time, to keep full-size frames out of memory
            source = np.stack([cover(frame[None], size)[0] if size else frame for frame in frames])
            fps = reader.fps
    frames = (source[None] if source.ndim == 3 else source)[:max_frames]
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(
            f'an array of frames must be uint8 (T, H, W, 3), got {source.dtype} {source.shape}; a tensor must be float '
            '(3, T, H, W) in [-1, 1]'
        )
    return as_video(cover(frames, size) if size and frames.shape[1:3] != tuple(size) else frames), fps


def _load_array(path: str) -> np.ndarray:
    try:
        return load_array_safely(path)
    except ValueError as error:
        raise ClipError(path, str(error).removeprefix(f'{path} ')) from error


def _check_tensor(video: Tensor, size: tuple[int, int] | None) -> Tensor:
    clip = video[None] if video.ndim == 4 else video
    if clip.ndim != 5 or clip.shape[:2] != (1, 3) or not clip.numel() or not clip.is_floating_point():
        raise ValueError(
            f'a video tensor must be float (3, T, H, W) or (1, 3, T, H, W), got {video.dtype} {tuple(video.shape)}'
        )
    check_value_range(clip, 'a video tensor')
    if size and tuple(clip.shape[3:]) != tuple(size):
        raise ValueError(
            f'size={tuple(size)} does not match this tensor of {clip.shape[3]} x {clip.shape[4]}: only files and '
            'arrays are resized; resize the tensor first'
        )
    return clip.float()


def stream_frames(
    path: str | Path,
    size: tuple[int, int] | None = None,
    num_frames: int | None = None,
    temporal_ratio: int | None = None,
) -> Iterator[Tensor]:
    """Yield the frames of a video of any length while keeping only a few in memory.

    Args:
        path: Video or image.
        size: Height and width. Frames are resized to cover it and cropped at the center. None keeps the file's size.
        num_frames: Number of frames to yield. None for all.
        temporal_ratio: Temporal ratio of the VAE. If given, trailing frames that do not fill a group are dropped.

    Yields:
        Frames ``(1, 3, H, W)`` in [-1, 1], for ``encode_stream``.

    Raises:
        ClipError: On the call, if the file cannot be opened or has too few frames. During iteration, if a frame cannot
            be decoded.
        ValueError: If ``size`` or ``num_frames`` is invalid.

    Example:
        >>> from pvvae_plugin.apis import stream_frames
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> frames = list(stream_frames('clip.webm', temporal_ratio=4))  # in practice for vae.encode_stream(...)
        >>> len(frames), frames[0].shape  # 1 + 4 * 4 of the 20 frames
        (17, torch.Size([1, 3, 48, 64]))
    """
    path = os.fspath(path)
    if size is not None:
        check_size(size)
    if num_frames is not None and (not isinstance(num_frames, int) or num_frames < 1):
        raise ValueError(f'num_frames must be a positive integer, got {num_frames!r}')
    available = len(open_video(path))
    count = available if num_frames is None else num_frames
    if count > available:
        raise ClipError(path, f'num_frames={num_frames}, but the file has {available} frames')
    if temporal_ratio is not None:
        count -= (count - 1) % temporal_ratio
    clips = (frame[None] for frame in iterate_frames(path, count))
    return (as_video(cover(clip, size) if size else clip)[:, :, 0] for clip in clips)


def check_size(size: tuple[int, int]) -> None:
    """Check that ``size`` is a height and a width.

    Raises:
        ValueError: If it is not two positive integers.
    """
    if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(f'size must be a height and a width in pixels, two positive integers, got {size!r}')


def find_videos(paths: Sequence[str | Path], num: int | None = None) -> list[Path]:
    """Return the given files, and the videos and ``.npy`` arrays found recursively in the given folders.

    Args:
        paths: Files and folders.
        num: Maximum number of files, picked at even spacing. None for all.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a folder contains no video.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(f for f in path.rglob('*') if is_video(f.name) or f.suffix.lower() == ARRAY)
            taken = {os.path.join(path, file.relative_to(path)) for file in found}
            left_out = list_left_out(str(path), taken, images=False)
            if not found:
                raise ValueError(f'no videos in {path}' + ''.join(f'; {group}' for group in left_out))
            if left_out:
                print_log(describe_left_out(str(path), left_out), logger='current', level=logging.WARNING)
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
    """Check that all files can be opened and are long enough for a clip.

    Args:
        files: Videos and arrays.
        num_frames: Clip length ``T``, ``1 + k * p_t`` with ``k`` at least 1.
        temporal_ratio: ``p_t``.

    Raises:
        ValueError: If ``num_frames`` is not such a length, or some files fail; the message names the first three.
    """
    if frames_to_groups(num_frames, temporal_ratio) < 2:
        raise ValueError(
            f'num_frames={num_frames} gives a single latent frame, but at least two are needed to compare: use at '
            f'least {1 + temporal_ratio} frames'
        )
    problems = []
    for file in files:
        try:
            length = read_video(file)[0].shape[2] if file.suffix.lower() == ARRAY else len(open_video(os.fspath(file)))
        except (ClipError, ValueError) as error:
            problems.append(str(error) if str(file) in str(error) else f'{file}: {error}')
            continue
        if length < num_frames:
            problems.append(f'{file}: {length} frames, needs {num_frames}')
    if problems:
        more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
        raise ValueError(f'{len(problems)} of {len(files)} files cannot be used: {"; ".join(problems[:3])}{more}')

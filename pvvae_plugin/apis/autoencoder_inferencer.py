"""Inferencer for VAEs: videos from paths or arrays, results as arrays or files."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch import Tensor

from pvvae_plugin.config.clip_facts import clip_geometry
from pvvae_plugin.config.config_file import read_config
from pvvae_plugin.devices import usable_device
from pvvae_plugin.models import VideoVAE
from pvvae_plugin.models.checkpoints import OWN_WEIGHTS, check_brings_weights, load_backbone
from pvvae_plugin.registry import MODELS
from pvvae_plugin.temporal import frames_to_groups, groups_to_frames
from pvvae_plugin.visualization import to_uint8

from .video_input import Source, read_video
from .video_output import MAX_FPS, MIN_FPS, check_output, write_clip

DEFAULT_FPS = 8.0


class VideoAutoencoderInferencer:
    """Inferencer for a trained VAE: reconstruct, predict, encode and decode videos.

    A video is a path (video, image or ``.npy``), an array (uint8 ``(T, H, W, 3)``) or a tensor (float ``(3, T, H, W)``
    in [-1, 1]). Trailing frames that do not fill a group are dropped with a log line. Frames are padded to a multiple
    of the spatial ratio, and decoded clips are cropped back. Clips are returned as uint8 arrays ``(T, H, W, 3)`` and
    also written to ``out`` (``.webm``, ``.gif``, ``.npy`` or ``.png``) if it is given.

    Args:
        model: A :class:`VideoVAE`, a folder written by ``save_pretrained``, or a config (path, name of a built-in
            config such as ``'pvvae_demo'``, or :class:`Config`). A generator's config provides its VAE.
        checkpoint: Checkpoint or work directory of the run that trained the VAE, or ``'pretrained'`` for a
            :class:`DiffusersVAE`. Required with a config, and only allowed there.
        device: Device to run on. Default: the GPU if available.

    Attributes:
        vae (VideoVAE): The VAE in evaluation mode. A :class:`VideoVAE` passed as ``model`` is used in place.

    Raises:
        FileNotFoundError: If the folder, config or checkpoint does not exist.
        ValueError: If config and checkpoint do not match, or the device is not available.

    Example:
        >>> from pvvae_plugin.apis import VideoAutoencoderInferencer
        >>> from pvvae_plugin.models import PredictiveVAE
        >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
        >>> inferencer = VideoAutoencoderInferencer(vae, device='cpu')  # or the folder of a trained VAE
        >>> frames = np.zeros((5, 30, 50, 3), np.uint8)  # or the path of a video
        >>> inferencer.reconstruct(frames).shape
        (5, 30, 50, 3)
        >>> inferencer.predict(frames, num_frames=17, out='predicted.gif').shape
        (17, 30, 50, 3)
    """

    def __init__(
        self,
        model: VideoVAE | Config | str | Path,
        checkpoint: str | Path | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        device = usable_device(device)  # before the weights are read
        self.vae = _load(model, checkpoint).to(device).eval()
        self._lock = Lock()  # diffusers VAEs keep the state of the current clip on the module

    @property
    def device(self) -> torch.device:
        """Device of the VAE."""
        return self.vae.last_layer.device

    def reconstruct(
        self,
        source: Source,
        out: str | Path | None = None,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
    ) -> np.ndarray:
        """Encode and decode a video.

        Args:
            source: The video.
            out: File to write.
            size: Height and width. Files and arrays are resized to cover it and cropped at the center. None keeps the
                source's size.
            fps: Frames per second of the written file. Default: those of the source, or 8 if unknown.

        Example:
            >>> from pvvae_plugin.apis import VideoAutoencoderInferencer
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> inferencer = VideoAutoencoderInferencer(vae, device='cpu')
            >>> inferencer.reconstruct(np.zeros((5, 90, 160, 3), np.uint8), size=(32, 48)).shape
            (5, 32, 48, 3)
        """
        video, source_fps = self._read(source, out, size, fps=fps)
        with self._lock, torch.no_grad():
            decoded = self.vae.decode(self.vae.encode(self._padded(video)).mode())
        return self._finish(decoded, video, out, fps or source_fps)

    def predict(
        self,
        source: Source,
        num_frames: int,
        num_observed: int | None = None,
        out: str | Path | None = None,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
    ) -> np.ndarray:
        """Reconstruct the first frames of a video and predict the rest.

        Args:
            source: The video.
            num_frames: Length ``T`` of the result, ``1 + k * p_t``.
            num_observed: Number of frames that the VAE encodes, ``1 + k * p_t``. Default: all.
            out: File to write.
            size: See :meth:`reconstruct`.
            fps: See :meth:`reconstruct`.

        Example:
            >>> from pvvae_plugin.apis import VideoAutoencoderInferencer
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> inferencer = VideoAutoencoderInferencer(vae, device='cpu')
            >>> image = np.zeros((32, 48, 3), np.uint8)
            >>> inferencer.predict(image, num_frames=9).shape  # a video of one image
            (9, 32, 48, 3)
        """
        video, source_fps = self._read(source, out, size, num_observed, fps)
        self._warn_of_length(num_frames)
        with self._lock, torch.no_grad():
            decoded = self.vae.predict(self._padded(video), num_frames)
        return self._finish(decoded, video, out, fps or source_fps)

    def encode(self, source: Source, size: tuple[int, int] | None = None) -> Tensor:
        """Return the posterior mode of a video: raw (not normalized) latents ``(1, C, t, h, w)`` on the CPU.

        Args:
            source: The video.
            size: See :meth:`reconstruct`.

        Example:
            >>> from pvvae_plugin.apis import VideoAutoencoderInferencer
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> inferencer = VideoAutoencoderInferencer(vae, device='cpu')
            >>> inferencer.encode(np.zeros((9, 32, 48, 3), np.uint8)).shape
            torch.Size([1, 4, 3, 2, 3])
        """
        video, _ = self._read(source, None, size)
        with self._lock, torch.no_grad():
            return self.vae.encode(self._padded(video)).mode().cpu()

    def decode(
        self, latents: Tensor | np.ndarray, out: str | Path | None = None, fps: float | None = None
    ) -> np.ndarray:
        """Decode raw latents ``(1, C, t, h, w)`` to a clip.

        Args:
            latents: Latents as returned by :meth:`encode`.
            out: File to write.
            fps: Frames per second of the written file. Default: 8.

        Example:
            >>> from pvvae_plugin.apis import VideoAutoencoderInferencer
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> inferencer = VideoAutoencoderInferencer(vae, device='cpu')
            >>> frames = np.zeros((9, 32, 48, 3), np.uint8)
            >>> np.array_equal(inferencer.decode(inferencer.encode(frames)), inferencer.reconstruct(frames))
            True
        """
        if out is not None:
            check_output(out, fps=fps)
        latents = torch.as_tensor(latents)
        if latents.ndim != 5 or len(latents) != 1:
            raise ValueError(f'latents must be those of one clip, (1, C, t, h, w), got {tuple(latents.shape)}')
        with self._lock, torch.no_grad():
            decoded = self.vae.decode(latents.to(self.device))
        return self._finish(decoded, decoded, out, fps)

    def _read(
        self,
        source: Source,
        out: str | Path | None,
        size: tuple[int, int] | None,
        num_frames: int | None = None,
        fps: float | None = None,
    ) -> tuple[Tensor, float]:
        if out is not None:
            check_output(out, fps=fps)
        video, source_fps = read_video(source, size)
        if out is not None:
            check_output(out, video.shape[3:])
        length, ratio = video.shape[2], self.vae.temporal_ratio
        if num_frames is None:
            num_frames = groups_to_frames(1 + (length - 1) // ratio, ratio)
            if num_frames < length:
                print_log(f'using {num_frames} of {length} frames: a clip has 1 + k * {ratio} frames', 'current')
        else:
            frames_to_groups(num_frames, ratio)
        if num_frames > length:
            raise ValueError(f'num_observed={num_frames} is more than the {length} frames of the video')
        self._warn_of_length(num_frames)
        return video[:, :, :num_frames], source_fps and min(max(source_fps, MIN_FPS), MAX_FPS)

    def _warn_of_length(self, num_frames: int) -> None:
        trained = self.vae.trained_frames
        if trained is not None and num_frames > trained:
            print_log(
                f'the clip has {num_frames} frames, but this VAE was trained on clips of {trained}: later frames may '
                f'be poor; use at most {trained} frames',
                'current',
                logging.WARNING,
            )

    def _padded(self, video: Tensor) -> Tensor:
        return self.vae.pad_sides(video).to(self.device)

    def _finish(self, decoded: Tensor, like: Tensor, out: str | Path | None, fps: float | None) -> np.ndarray:
        frames = to_uint8(decoded[0, :, :, : like.shape[3], : like.shape[4]].float().cpu())
        if out is not None:
            write_clip(out, frames, fps or DEFAULT_FPS)
        return frames


def _load(model: VideoVAE | Config | str | Path, checkpoint: str | Path | None) -> VideoVAE:
    is_folder = not isinstance(model, (VideoVAE, Config)) and os.path.isdir(model)
    if checkpoint is not None and (is_folder or isinstance(model, VideoVAE)):
        raise ValueError(
            f'checkpoint={str(checkpoint)!r} is only allowed with a config: a VideoVAE or its folder has its own '
            'weights'
        )
    if isinstance(model, VideoVAE):
        return model
    if is_folder and os.path.isfile(os.path.join(model, 'config.json')):
        return VideoVAE.from_pretrained(model)
    cfg = read_config(model)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    if checkpoint is None:
        raise ValueError(
            f'{cfg.filename} is a config without weights: give checkpoint, the file or work directory of the run that '
            f'trained the VAE, or {OWN_WEIGHTS!r} for a DiffusersVAE'
        )
    if checkpoint == OWN_WEIGHTS:
        check_brings_weights(cfg.model.backbone)
        return MODELS.build(cfg.model.backbone)
    vae = MODELS.build(cfg.model.backbone)
    load_backbone(vae, os.fspath(checkpoint))
    with suppress(ValueError):  # the config does not state the clip length
        vae.trained_frames = clip_geometry(cfg)[0]
    return vae

"""VideoAutoencoderInferencer: a VAE for notebooks, from a path or an array to an array or a file."""

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
from .video_output import check_output, write_clip

DEFAULT_FPS = 8.0


class VideoAutoencoderInferencer:
    """A trained VAE for notebooks: reconstruct, predict, encode and decode videos.

    Videos come as paths (video, image, ``.npy``), arrays (uint8 ``(T, H, W, 3)``) or tensors (float ``(3, T, H, W)`` in
    [-1, 1]). Frames at the end that make no group are left out, and the log says so; sides that do not divide by the
    spatial ratio are padded, and what is decoded is cropped to them. Clips come back as arrays, uint8
    ``(T, H, W, 3)``, and are written to ``out`` (``.webm``, ``.gif``, ``.npy``, ``.png``) where it is given.

    Args:
        model: A :class:`VideoVAE`; a folder that ``save_pretrained`` wrote; or a config: its path, the name of one of
            ours such as ``'pvvae_demo'``, or a :class:`Config`. Of a generator's config the VAE is taken.
        checkpoint: With a config: checkpoint or work directory of the run that trained the VAE, or ``'pretrained'``
            for a :class:`DiffusersVAE`.
        device: Where to compute; the GPU if there is one, by default.

    Attributes:
        vae (VideoVAE): The VAE, in evaluation mode; the one that was given, where one was.

    Raises:
        FileNotFoundError: If there is no such folder, config or checkpoint.
        ValueError: If they do not fit, or there is no such device.

    Example:
        >>> from pvvae_plugin.apis import VideoAutoencoderInferencer
        >>> from pvvae_plugin.models import PredictiveVAE
        >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
        >>> inferencer = VideoAutoencoderInferencer(vae, device='cpu')  # or the folder of a trained one
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
        self._lock = Lock()  # networks of diffusers keep a clip's state on themselves while they work

    @property
    def device(self) -> torch.device:
        """Where the VAE computes."""
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
            size: Height and width to resize a file or an array to, covering it. None for its own.
            fps: Frames a second of the file; the source's by default, or 8.

        Example:
            >>> from pvvae_plugin.apis import VideoAutoencoderInferencer
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> inferencer = VideoAutoencoderInferencer(vae, device='cpu')
            >>> inferencer.reconstruct(np.zeros((5, 90, 160, 3), np.uint8), size=(32, 48)).shape
            (5, 32, 48, 3)
        """
        video, source_fps = self._read(source, out, size)
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
        """Finish a video: its first frames reconstructed, the others predicted.

        Args:
            source: The video.
            num_frames: Length ``T`` of the result, ``1 + k * p_t``.
            num_observed: How many of its frames are looked at, ``1 + k * p_t``; all by default.
            out: File to write.
            size: As for :meth:`reconstruct`.
            fps: As for :meth:`reconstruct`.

        Example:
            >>> from pvvae_plugin.apis import VideoAutoencoderInferencer
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> inferencer = VideoAutoencoderInferencer(vae, device='cpu')
            >>> image = np.zeros((32, 48, 3), np.uint8)
            >>> inferencer.predict(image, num_frames=9).shape  # a video of one image
            (9, 32, 48, 3)
        """
        video, source_fps = self._read(source, out, size, num_observed)
        self._warn_of_length(num_frames)
        with self._lock, torch.no_grad():
            decoded = self.vae.predict(self._padded(video), num_frames)
        return self._finish(decoded, video, out, fps or source_fps)

    def encode(self, source: Source, size: tuple[int, int] | None = None) -> Tensor:
        """Return the most likely latents ``(1, C, t, h, w)`` of a video, raw, on the CPU.

        Args:
            source: The video.
            size: As for :meth:`reconstruct`.

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
            latents: What :meth:`encode` gave.
            out: File to write.
            fps: Frames a second of the file, 8 by default.

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
            check_output(out)
        latents = torch.as_tensor(latents)
        if latents.ndim != 5 or len(latents) != 1:
            raise ValueError(f'latents of one clip are (1, C, t, h, w), got {tuple(latents.shape)}')
        with self._lock, torch.no_grad():
            decoded = self.vae.decode(latents.to(self.device))
        return self._finish(decoded, decoded, out, fps)

    def _read(
        self, source: Source, out: str | Path | None, size: tuple[int, int] | None, num_frames: int | None = None
    ) -> tuple[Tensor, float]:
        if out is not None:
            check_output(out)
        video, fps = read_video(source, size)
        if out is not None:
            check_output(out, video.shape[3:])
        length, ratio = video.shape[2], self.vae.temporal_ratio
        if num_frames is None:
            num_frames = groups_to_frames(1 + (length - 1) // ratio, ratio)
            if num_frames < length:
                print_log(f'{num_frames} of {length} frames are used: a clip has 1 + k * {ratio}', 'current')
        else:
            frames_to_groups(num_frames, ratio)
        if num_frames > length:
            raise ValueError(f'{num_frames} frames are to be observed, the video has {length}')
        self._warn_of_length(num_frames)
        return video[:, :, :num_frames], fps

    def _warn_of_length(self, num_frames: int) -> None:
        trained = self.vae.trained_frames
        if trained is not None and num_frames > trained:
            print_log(
                f'{num_frames} frames, but this VAE was trained on clips of {trained}: it need not know what to do '
                'with what lies beyond them',
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
        raise ValueError(f'a VAE and its folder have their weights: checkpoint={str(checkpoint)!r} is for a config')
    if isinstance(model, VideoVAE):
        return model
    if is_folder and os.path.isfile(os.path.join(model, 'config.json')):
        return VideoVAE.from_pretrained(model)
    cfg = read_config(model)
    init_default_scope(cfg.get('default_scope', 'pvvae_plugin'))
    if checkpoint is None:
        raise ValueError(
            f'{cfg.filename} describes a VAE and holds no weights: give checkpoint, the file or work directory of the '
            f'run that trained it, or {OWN_WEIGHTS!r} for a DiffusersVAE'
        )
    if checkpoint == OWN_WEIGHTS:
        check_brings_weights(cfg.model.backbone)
        return MODELS.build(cfg.model.backbone)
    vae = MODELS.build(cfg.model.backbone)
    load_backbone(vae, os.fspath(checkpoint))
    with suppress(ValueError):  # of a config that does not tell
        vae.trained_frames = clip_geometry(cfg)[0]
    return vae

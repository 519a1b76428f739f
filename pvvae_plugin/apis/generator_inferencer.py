"""Inferencer for generators."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from pvvae_plugin.config.clip_facts import class_names, clip_geometry
from pvvae_plugin.config.config_file import read_config
from pvvae_plugin.devices import usable_device
from pvvae_plugin.sampling.first_frames import default_num_given, find_sources, read_first_frames
from pvvae_plugin.sampling.load_generator import load_generator, resolve_labels
from pvvae_plugin.visualization import to_uint8

from .video_output import check_output, write_clip


class VideoGeneratorInferencer:
    """Inferencer for a trained generator.

    Args:
        config: The generator's config: path, name of a built-in config such as ``'dit_demo'``, or :class:`Config`.
        checkpoint: Checkpoint or work directory of the run.
        device: Device to run on. Default: the GPU if available.
        raw_weights: Load the raw trained weights instead of their EMA.

    Attributes:
        model (LatentVideoGenerator): The generator in evaluation mode.
        classes (tuple[str, ...] | None): Class names, or None if the config does not give them.
        num_classes (int | None): Number of classes, or None for an unconditional generator.

    Raises:
        FileNotFoundError: If the config or checkpoint does not exist.
        ValueError: If config and checkpoint do not match, or the device is not available.

    Example:
        >>> from pvvae_plugin.apis import VideoGeneratorInferencer
        >>> from pvvae_plugin.config import read_config
        >>> from pvvae_plugin.registry import MODELS
        >>> cfg = read_config('dit_demo', {'model.backbone_checkpoint': None})
        >>> torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), 'generator.pth')  # a run trains one
        >>> inferencer = VideoGeneratorInferencer(cfg, 'generator.pth', device='cpu')
        >>> inferencer.num_classes, len(inferencer.classes)
        (7, 7)
    """

    def __init__(
        self,
        config: Config | str | Path,
        checkpoint: str | Path,
        device: str | torch.device | None = None,
        raw_weights: bool = False,
    ) -> None:
        device = usable_device(device)  # before the weights are read
        self.cfg = read_config(config)
        init_default_scope(self.cfg.get('default_scope', 'pvvae_plugin'))
        self.model = model = load_generator(self.cfg, str(checkpoint), raw_weights, device)
        self._lock = Lock()  # diffusers VAEs keep the state of the current clip on the module
        self.num_classes = model.head.null_label
        self.classes = class_names(self.cfg, self.num_classes)

    def generate(
        self,
        labels: Sequence[str | int] | str | int | None = None,
        num: int | None = None,
        num_frames: int | None = None,
        size: tuple[int, int] | None = None,
        first_frames: str | Path | None = None,
        num_given: int | None = None,
        out: str | Path | Sequence[str | Path] | None = None,
        fps: float = 8.0,
        **sampling: Any,
    ) -> list[np.ndarray]:
        """Generate videos.

        Args:
            labels: Classes by name or number, cycled over the videos. Default: every class once.
            num: Number of videos. Default: the number of labels, or 1.
            num_frames: Frames per video. Default: the config's.
            size: Height and width. Default: the config's.
            first_frames: Video or image to continue, or a folder of them. Needs a generator trained with
                ``condition_prob``.
            num_given: Number of frames to condition on. Default: 1 for an image, half of the groups for a video.
            out: One file per video, ``.webm``, ``.gif``, ``.npy`` or ``.png``. A single path if there is one video.
            fps: Frames per second of the written files.
            **sampling: ``num_inference_steps``, ``guidance_scale``, ``guidance_interval``, ``shift``, ``solver``,
                ``seed``, ``batch_size`` of :meth:`LatentVideoGenerator.generate`.

        Returns:
            Clips, uint8 ``(T, H, W, 3)``. Each depends only on ``seed`` and its index.

        Raises:
            ValueError: If an argument is invalid. Arguments are checked before sampling starts.

        Example:
            >>> from pvvae_plugin.apis import VideoGeneratorInferencer
            >>> from pvvae_plugin.config import read_config
            >>> from pvvae_plugin.registry import MODELS
            >>> cfg = read_config('dit_demo', {'model.backbone_checkpoint': None})
            >>> torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), 'generator.pth')  # a run trains one
            >>> inferencer = VideoGeneratorInferencer(cfg, 'generator.pth', device='cpu')
            >>> clips = inferencer.generate(labels=['orbit', 'bounce'], num_inference_steps=2, out=['a.gif', 'b.gif'])
            >>> [clip.shape for clip in clips]
            [(9, 32, 32, 3), (9, 32, 32, 3)]
        """
        if num_given is not None and first_frames is None:
            raise ValueError(f'num_given={num_given} needs first_frames, the video or image to continue')
        given = [labels] if isinstance(labels, (str, Integral)) else labels
        for name, value in (('num', num), ('num_frames', num_frames), ('num_given', num_given)):
            if value is not None and value < 1:
                raise ValueError(f'{name} must be at least 1, got {value}')
        if num_given is not None and first_frames is None:
            raise ValueError(f'num_given={num_given} needs first_frames: pass a video or an image to continue')
        if given is not None and not len(given):
            raise ValueError('labels is empty: pass None to generate every class once')
        cycle = resolve_labels(None if given is None else list(map(str, given)), self.classes, self.num_classes)
        num = num or len(cycle or [0])
        outs = [out] if isinstance(out, (str, Path)) else list(out or ())
        if outs and len(outs) != num:
            raise ValueError(f'out must name one file per video: {num} videos, got {len(outs)} files')
        if len({str(path) for path in outs}) < len(outs):
            raise ValueError('out names the same file twice: every video needs its own file')
        for path in outs:
            check_output(path, fps=fps)
        num_frames, size = clip_geometry(self.cfg, num_frames, size)
        frames = None
        if first_frames is not None:
            sources = find_sources(str(first_frames))[:num]
            num_given = num_given or default_num_given(sources, num_frames, self.model.backbone.temporal_ratio)
            frames = read_first_frames(self.cfg, sources, num_given, size)
        made = self.model.generate(
            num=num,
            num_frames=num_frames,
            size=size,
            labels=None if cycle is None else [cycle[i % len(cycle)] for i in range(num)],
            first_frames=frames,
            **sampling,
        )
        with self._lock:
            clips = [to_uint8(video.cpu()) for _, video in made]
        for path, clip in zip(outs, clips, strict=False):
            write_clip(path, clip, fps)
        return clips

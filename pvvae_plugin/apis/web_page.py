"""Local web page to try a VAE and a generator: reconstruct, predict, generate."""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pvvae_plugin.datasets import ClipError
from pvvae_plugin.datasets.readers.base import is_image
from pvvae_plugin.functional.conversion import as_video
from pvvae_plugin.functional.image_quality import psnr
from pvvae_plugin.temporal import frames_to_groups, groups_to_frames
from pvvae_plugin.visualization import draw_panels, draw_strip, to_uint8
from pvvae_plugin.visualization.video_files import MAX_GIF_FPS

from .autoencoder_inferencer import DEFAULT_FPS, VideoAutoencoderInferencer
from .generator_inferencer import VideoGeneratorInferencer
from .video_input import read_video
from .video_output import write_clip

if TYPE_CHECKING:
    import gradio

MAX_UPLOAD = '200mb'
MAX_VIDEOS = 16
MAX_PIXELS = 50_000_000
Shown = tuple[str, np.ndarray, str]


class WebPage:
    """Actions behind the page's buttons. Each returns a video's path, a strip of frames and a line of text.

    The page reads only uploaded files and writes only to a temporary folder that is removed when the page closes.

    Args:
        autoencoder: VAE for the Reconstruct and Predict tabs. None hides them.
        generator: Generator for the Generate tab. None hides it.
        size: Height and width. Uploads are resized to cover it and cropped at the center.
        num_frames: Maximum number of frames used per upload, ``1 + k * p_t``.

    Raises:
        ValueError: If both models are None, or the VAE does not support ``size`` or ``num_frames``.
    """

    def __init__(
        self,
        autoencoder: VideoAutoencoderInferencer | None,
        generator: VideoGeneratorInferencer | None,
        size: tuple[int, int] = (256, 256),
        num_frames: int = 17,
    ) -> None:
        if autoencoder is None and generator is None:
            raise ValueError('the page has no model: give a VAE, a generator, or both')
        self.autoencoder, self.generator = autoencoder, generator
        self.size, self.num_frames = size, num_frames
        if autoencoder is not None:
            vae = autoencoder.vae
            self.num_groups = frames_to_groups(num_frames, vae.temporal_ratio)
            if wrong := [side for side in size if side % vae.spatial_ratio]:
                raise ValueError(f'size must be divisible by the spatial ratio {vae.spatial_ratio}, got {wrong[0]}')
        self._folder = tempfile.TemporaryDirectory(prefix='pvvae_page_')

    def reconstruct(self, path: str | None) -> Shown:
        """Show an upload next to its reconstruction."""
        truth, fps = self._read(path)
        made = self.autoencoder.reconstruct(truth)
        truth = truth[: len(made)]
        decibels = float(psnr(as_video(truth), as_video(made), data_range=2.0).mean())
        return self._show([truth, made], ['yours', 'reconstruction'], fps, None, f'PSNR {decibels:.2f} dB')

    def predict(self, path: str | None, num_observed_groups: int) -> Shown:
        """Show an upload next to the prediction from its first groups."""
        truth, fps = self._read(path)
        ratio = self.autoencoder.vae.temporal_ratio
        groups = 1 + (len(truth) - 1) // ratio
        if groups <= num_observed_groups:
            raise ValueError(
                f'all {groups} groups ({len(truth)} frames) are observed, so none is left to predict: observe fewer'
            )
        observed, total = groups_to_frames(int(num_observed_groups), ratio), groups_to_frames(groups, ratio)
        made = self.autoencoder.predict(truth, total, num_observed=observed)
        text = f'{observed} of {total} frames observed; those with an orange border are predicted'
        return self._show([truth[:total], made], ['yours', 'finished'], fps, [None, observed], text)

    def generate(self, labels: Sequence[str], num: int, steps: int, guidance: float, seed: int) -> Shown:
        """Generate videos."""
        if not 1 <= num <= MAX_VIDEOS:
            raise ValueError(f'the number of videos must be between 1 and {MAX_VIDEOS}, got {num}')
        labels = list(labels or ()) or None
        clips = self.generator.generate(
            labels,
            num=int(num),
            num_inference_steps=int(steps),
            guidance_scale=float(guidance),
            seed=int(seed or 0),
            batch_size=int(num),
        )
        names = labels or self.classes or ['']
        captions = [f'{names[i % len(names)]} #{i}' for i in range(len(clips))]
        return self._show(
            clips, captions, DEFAULT_FPS, None, f'seed {seed or 0:.0f}: the same settings give the same videos'
        )

    @property
    def classes(self) -> list[str] | None:
        """Class names of the generator, or class numbers if it has no names. None for an unconditional generator."""
        if self.generator is None or self.generator.num_classes is None:
            return None
        return list(self.generator.classes or map(str, range(self.generator.num_classes)))

    @property
    def offers_guidance(self) -> bool:
        """True if the generator was trained for guidance."""
        return bool(self.classes) and self.generator.model.class_dropout > 0

    def _read(self, path: str | None) -> tuple[np.ndarray, float]:
        if not path:
            raise ValueError('upload a video or an image first')
        if is_image(path) and math.prod(image_size(path)) > MAX_PIXELS:
            raise ValueError(f'the image has more than {MAX_PIXELS:,} pixels: upload a smaller one')
        video, fps = read_video(path, self.size, self.num_frames)
        return to_uint8(video[0]), min(fps or DEFAULT_FPS, MAX_GIF_FPS)

    def _show(
        self, clips: list[np.ndarray], captions: list[str], fps: float, num_observed: list[int | None] | None, text: str
    ) -> Shown:
        path = Path(self._folder.name) / f'{uuid.uuid4().hex}.webm'
        write_clip(path, draw_panels(clips, captions, num_observed, columns=4), fps)
        return str(path), draw_strip(clips, captions, num_observed), text


def image_size(path: str) -> tuple[int, int]:
    """Read the width and height of an image from its header.

    Raises:
        ClipError: If the file is not an image.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ClipError(path, f'not an image that can be shown: {error}') from error


def build_page(page: WebPage) -> gradio.Blocks:
    """Build the gradio page with one tab per action.

    Raises:
        ImportError: If gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise ImportError('the web page needs gradio: pip install -e ".[web]"') from error

    def guarded(call: Callable[..., Shown]) -> Callable[..., Shown]:
        """Show errors as messages on the page."""

        def run(*arguments: Any) -> Shown:
            try:
                return call(*arguments)
            except (ClipError, ValueError, FloatingPointError, MemoryError) as error:
                raise gr.Error(str(error)) from error

        return run

    def outputs() -> list[Any]:
        text = gr.Textbox(label='', show_label=False, interactive=False)
        return [gr.Video(label='video', autoplay=True, loop=True, height=320), gr.Image(label='frames'), text]

    with gr.Blocks(title='pvvae_plugin', delete_cache=(3600, 3600)) as blocks:
        gr.Markdown('# pvvae_plugin\nTry predictive video VAEs: reconstruct a clip, or predict how it continues.')
        if page.autoencoder is not None:
            with gr.Tab('Reconstruct'):
                source = gr.File(label='a video or an image', file_types=['video', 'image'], type='filepath')
                button = gr.Button('Reconstruct', variant='primary')
                button.click(guarded(page.reconstruct), [source], outputs())
            with gr.Tab('Predict'):
                source = gr.File(label='a video', file_types=['video'], type='filepath')
                groups = gr.Slider(1, max(1, page.num_groups - 1), step=1, value=1, label='observed groups of frames')
                button = gr.Button('Predict', variant='primary')
                button.click(guarded(page.predict), [source, groups], outputs())
        if page.generator is not None:
            with gr.Tab('Generate'):
                labels = gr.Dropdown(page.classes or [], multiselect=True, label='classes', visible=bool(page.classes))
                with gr.Row():
                    num = gr.Slider(1, MAX_VIDEOS, step=1, value=4, label='videos')
                    steps = gr.Slider(1, 200, step=1, value=50, label='steps')
                    scale = 2 if page.offers_guidance else 1
                    guidance = gr.Slider(1, 8, step=0.1, value=scale, label='guidance', visible=page.offers_guidance)
                    seed = gr.Number(0, precision=0, label='seed')
                button = gr.Button('Generate', variant='primary')
                button.click(guarded(page.generate), [labels, num, steps, guidance, seed], outputs())
    return blocks

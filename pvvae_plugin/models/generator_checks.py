"""Checks of a generator's arguments and videos, before and while it samples."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from pvvae_plugin.functional.conversion import check_value_range
from pvvae_plugin.functional.rectified_flow import SOLVERS
from pvvae_plugin.renaming import warn_renamed
from pvvae_plugin.temporal import frames_to_groups

STATISTICS = ('backbone.latent_mean', 'backbone.latent_std')  # the only weights of the VAE in a generator's checkpoint
ClipShape = tuple[int, int, int]  # (T, H, W)


def latent_shape(vae: nn.Module, num_frames: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the shape ``(C, t, h, w)`` of the latents of a video.

    Raises:
        ValueError: If the VAE does not accept the length or the size.
    """
    vae.check_video(torch.empty(1, 3, num_frames, *size, device='meta'))
    height, width = (side // vae.spatial_ratio for side in size)
    return vae.latent_channels, frames_to_groups(num_frames, vae.temporal_ratio), height, width


def untrained_shape(shape: ClipShape, trained_on: Collection[ClipShape], vae: nn.Module) -> str | None:
    """Compare a clip shape with those of the training.

    Args:
        shape: ``(T, H, W)`` of the clips to generate or to measure.
        trained_on: Shapes of the training clips; empty if unknown.
        vae: The backbone.

    Returns:
        A description of the difference; None if the generator was trained on this shape, or if that is unknown.
    """
    if not trained_on or shape in trained_on:
        return None

    def describe(frames: int, height: int, width: int) -> str:
        _, *latents = latent_shape(vae, frames, (height, width))
        return f'{frames} x {height} x {width} (latents {" x ".join(map(str, latents))})'

    trained = ', '.join(describe(*one) for one in sorted(trained_on))
    return f'clips of {describe(*shape)}, but the generator is trained on {trained}'


def shape_records(trained_on: Iterable[ClipShape], vae: nn.Module) -> list[dict[str, Any]]:
    """Return the shapes of the training clips as a checkpoint stores them."""
    return [
        {'num_frames': frames, 'size': list(size), 'latent_shape': list(latent_shape(vae, frames, size))}
        for frames, *size in sorted(trained_on)
    ]


def recorded_shapes(checkpoint: Mapping) -> set[ClipShape]:
    """Return the shapes of the training clips stored in a checkpoint; empty for one of an earlier version."""
    return {(record['num_frames'], *record['size']) for record in checkpoint.get('trained_on', ())}


@functools.cache
def warn_once(text: str) -> None:
    """Log a warning once per process."""
    print_log(text, 'current', logging.WARNING)


def warn_of_vae(source: Mapping[str, Any] | None, backbone: nn.Module) -> None:
    """Warn of a VAE that a generator should not be trained on: one with random weights, or one that is not finished.

    Args:
        source: ``path`` of the VAE's weights, and ``iter`` and ``max_iters`` of its run if known; None if it loaded no
            weights.
        backbone: The VAE.
    """
    if source is None:
        warn_once(
            f'model.backbone_checkpoint is None, and {type(backbone).__name__} loads no weights of its own: the VAE of '
            'this generator is random, and no checkpoint will hold it. Set model.backbone_checkpoint to a trained VAE'
        )
    elif source.get('iter', 0) < source.get('max_iters', 0):
        warn_once(
            f'the VAE {source["path"]} is at iteration {source["iter"]:,} of {source["max_iters"]:,}. Training it '
            'further makes another VAE, with which this generator does not work: finish the VAE first, or keep a copy '
            'of this file'
        )


def warn_of_unknown_vae(path: str, checkpoint: Mapping, source: Mapping[str, Any] | None, backbone: nn.Module) -> None:
    """Warn if nothing tells whether a generator was trained on the VAE that decodes its latents.

    Args:
        path: File of the checkpoint.
        checkpoint: The checkpoint of the generator.
        source: See :func:`warn_of_vae`.
        backbone: The VAE.
    """
    if any(name.startswith('backbone.') and name not in STATISTICS for name in checkpoint['state_dict']):
        return  # the file holds the VAE
    if source is None:
        warn_of_vae(source, backbone)
    elif not checkpoint.get('backbone_source'):
        warn_once(
            f'{path} does not record its VAE (weights only), so it cannot be checked: make sure that it was trained on '
            f'{source["path"]}'
        )


def steps_of_calls(calls: int, solver: str) -> int:
    """Return the number of solver steps for ``calls`` network calls, for the deprecated argument ``steps``.

    Raises:
        ValueError: If ``calls`` is not a multiple of the solver's calls per step.
    """
    per_step = SOLVERS[solver].calls_per_step if solver in SOLVERS else 1
    if calls % per_step:
        raise ValueError(
            f'steps={calls} network calls is not a multiple of {per_step}, the calls per {solver} step: use '
            f'num_inference_steps={calls // per_step} or {calls // per_step + 1}'
        )
    warn_renamed('steps', f'num_inference_steps={calls // per_step}', 'generate')
    return calls // per_step


def check_labels(labels: Sequence[int] | None, num: int, num_classes: int | None) -> list[int] | None:
    """Return ``num`` class labels as plain integers; None for an unconditional head.

    Raises:
        ValueError: If the number is wrong, a label is out of range, or an unconditional head gets labels.
    """
    if num_classes is None:
        if labels is not None:
            raise ValueError('labels must be None, because the head is unconditional')
        return None
    labels = None if labels is None else [int(label) for label in labels]
    if labels is None or len(labels) != num or not all(0 <= label < num_classes for label in labels):
        raise ValueError(f'labels must be {num} classes in 0..{num_classes - 1}, got {labels}')
    return labels


def check_guidance(guidance_scale: float, num_classes: int | None, class_dropout: float) -> None:
    """Check that a generator can be guided, if guidance is on.

    Args:
        guidance_scale: Guidance scale, 1 for none.
        num_classes: Number of classes of the head; None for an unconditional head.
        class_dropout: ``class_dropout`` of the training.

    Raises:
        ValueError: If the generator is unconditional, or was trained without hiding classes.
    """
    if guidance_scale == 1:
        return
    if num_classes is None:
        raise ValueError(
            f'guidance_scale={guidance_scale} needs a class-conditional generator, but this one is unconditional '
            '(model.head.num_classes=None): use guidance_scale=1'
        )
    if not class_dropout:
        raise ValueError(
            f'guidance_scale={guidance_scale} needs a generator trained with and without classes, but this one was '
            'trained with class_dropout=0: use guidance_scale=1, or train one with e.g. model.class_dropout=0.1'
        )


def check_first_frames(
    first_frames: Tensor, vae: nn.Module, condition_prob: float, num: int, num_frames: int, size: tuple[int, int]
) -> None:
    """Check that the model can continue the given frames.

    Args:
        first_frames: ``(n, 3, T', H, W)``.
        vae: The backbone.
        condition_prob: ``condition_prob`` of the model.
        num: Number of videos.
        num_frames: Frames of a video, including the given ones.
        size: Height and width of a video.

    Raises:
        ValueError: If the model was not trained to continue frames, or their number, length, size or values are wrong.
    """
    if not condition_prob:
        raise ValueError(
            'this model cannot continue frames: it was trained with condition_prob=0. Train a model with e.g. '
            'model.condition_prob=0.5'
        )
    if not 1 <= len(first_frames) <= num:
        raise ValueError(f'first_frames must hold 1..{num} clips for {num} videos, got {len(first_frames)}')
    vae.check_video(first_frames)
    check_value_range(first_frames, 'first_frames')
    given, height, width = first_frames.shape[2:]
    if given >= num_frames:
        raise ValueError(
            f'first_frames has {given} frames, but a video has only {num_frames}: pass fewer frames, or increase '
            'num_frames'
        )
    if (height, width) != tuple(size):
        raise ValueError(f'first_frames are {height} x {width}, but the videos are {size[0]} x {size[1]}: resize them')


def check_finite(videos: Tensor, indices: Sequence[int]) -> None:
    """Check that videos ``(N, 3, T, H, W)`` are finite, because a NaN would be written as black.

    Raises:
        FloatingPointError: If a video is not finite. The message gives its index.
    """
    finite = videos.flatten(1).isfinite().all(dim=1).tolist()
    if not all(finite):
        raise FloatingPointError(
            f'video {indices[finite.index(False)]} is not finite: the checkpoint has diverged, or guidance_scale is '
            'too high'
        )

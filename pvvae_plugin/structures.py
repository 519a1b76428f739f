"""Data sample that accompanies a clip through pipelines, models and metrics."""

from __future__ import annotations

from mmengine.structures import BaseDataElement

# Result that a metric appends for a skipped sample. Every sample needs an entry, because MMEngine removes duplicates of
# distributed sampling by position. It must not be None: MMEngine removes None first, which shifts the duplicates.
SUBSTITUTED = 'substituted'


class VideoDataSample(BaseDataElement):
    """Labels, meta information and results of a clip.

    Meta information (set once, never on a device):
        path (str): Path of the file, with ``#t=start,end`` appended for a segment; or the name of a procedural clip.
        fps (float): Frames per second of the source; 0 if unknown.
        index (int): Index of a generated clip among the requested ones.
        label (int | None): Class index from 0; None if unlabeled.
        observed_groups (tuple[bool, ...]): Groups of the clip that the encoder may see, ``G`` bools; absent if all.
        draw_key (int): Key of every random draw for this clip, see :mod:`pvvae_plugin.functional.keyed_random`.
        substituted_path (str): Set only if the requested file could not be read and another clip replaced it: the path
            of the requested file. Metrics skip such samples.
        skipped_clips (list[tuple[str, str]]): Set with ``substituted_path``: path and error of the requested clip,
            then those of the replacements that also failed.

    Data fields (tensors, follow ``.to(device)``):
        latents (Tensor): Mode of the posterior, raw, ``(C, t, h, w)``.
        reconstruction (Tensor): ``(3, T, H, W)`` in [-1, 1].
        predictions (dict[int, Tensor]): Number of observed groups -> whole clip ``(3, T, H, W)`` with its dropped
            groups predicted.
        flow_losses (Tensor): Losses of a generator in ``P`` equal parts of the time from noise to data, ``(P,)``.
        generated (Tensor): Generated clip, ``(3, T, H, W)`` in [-1, 1].
        video (Tensor): True clip, ``(3, T, H, W)`` in [-1, 1].

    Example:
        >>> from pvvae_plugin.structures import VideoDataSample
        >>> sample = VideoDataSample(metainfo=dict(path='a.mp4', label=3))
        >>> sample.video = torch.zeros(3, 9, 32, 32)
        >>> sample.label, list(sample.keys())  # data fields only, without meta information
        (3, ['video'])
    """

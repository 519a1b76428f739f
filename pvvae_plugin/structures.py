"""What travels beside a clip through pipelines, models and metrics."""

from __future__ import annotations

from mmengine.structures import BaseDataElement

# What a metric appends to its results for a sample that it skips. Every sample must leave one entry: MMEngine drops the
# duplicates of distributed sampling by position. The entry must not be None, because MMEngine drops those first, and
# the duplicates then move up into their places.
SUBSTITUTED = 'substituted'


class VideoDataSample(BaseDataElement):
    """Labels, meta information and results of one clip.

    Meta information (set once, never on a device):
        path (str): The file, with ``#t=start,end`` behind it for a segment; or the name of a procedural clip.
        fps (float): Frames a second of the source; 0 where unknown.
        index (int): Of a generated clip, which of those asked for it is.
        label (int | None): Class index from 0; None where unlabelled.
        observed_groups (tuple[bool, ...]): Which of the clip's ``G`` groups the encoder may see; absent if all.
        draw_key (int): Key of every random draw made for this clip, see :mod:`pvvae_plugin.functional.keyed_random`.
        substituted_path (str): Present where the requested file could not be read and another clip took its
            place: the file that failed. Metrics leave such samples out.
        skipped_clips (list[tuple[str, str]]): Present then too: path and reason of each clip that failed, the one
            asked for first, and then those tried in its place.

    Data fields (tensors, follow ``.to(device)``):
        latents (Tensor): Mode of the posterior, raw, ``(C, t, h, w)``.
        reconstruction (Tensor): ``(3, T, H, W)`` in [-1, 1].
        predictions (dict[int, Tensor]): Number of observed groups -> whole clip ``(3, T, H, W)``, its dropped part
            predicted.
        flow_losses (Tensor): A generator's losses at times from noise to data, ``(P,)``, one for each equal part.
        generated (Tensor): A clip that a generator made, ``(3, T, H, W)`` in [-1, 1].
        video (Tensor): The true clip ``(3, T, H, W)`` in [-1, 1].

    Example:
        >>> from pvvae_plugin.structures import VideoDataSample
        >>> sample = VideoDataSample(metainfo=dict(path='a.mp4', label=3))
        >>> sample.video = torch.zeros(3, 9, 32, 32)
        >>> sample.label, list(sample.keys())  # data fields, without the meta information
        (3, ['video'])
    """

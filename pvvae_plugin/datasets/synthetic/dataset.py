"""Dataset of procedural clips."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pvvae_plugin.functional.keyed_random import numpy_rng
from pvvae_plugin.registry import DATASETS

from ..clip_dataset import ClipDataset
from .motions import MOTIONS, Start, Track
from .rendering import OUTLINES, Backdrop, Sprite, render


class Difficulty(NamedTuple):
    """Parameters of a difficulty."""

    num_objects: int
    radius: tuple[float, float]  # frame sides
    backdrop: str  # 'dark', 'gradient' or 'waves'
    striped: bool
    camera_speed: float  # maximum, in frame sides per frame
    colors: np.ndarray | None = None  # two colors for all shapes, (2, 3); None draws them per shape


ORANGE_AND_BLUE = np.array([[1.0, 0.75, 0.2], [0.2, 0.45, 0.95]], np.float32)
DIFFICULTIES = {
    'plain': Difficulty(1, (0.19, 0.26), backdrop='dark', striped=False, camera_speed=0.0, colors=ORANGE_AND_BLUE),
    'easy': Difficulty(1, (0.14, 0.20), backdrop='gradient', striped=False, camera_speed=0.0),
    'medium': Difficulty(2, (0.12, 0.18), backdrop='waves', striped=True, camera_speed=0.0),
    'hard': Difficulty(4, (0.10, 0.17), backdrop='waves', striped=True, camera_speed=0.03),
}


class Scene(NamedTuple):
    """Content of a clip: the arguments of :func:`render`."""

    sprites: list[Sprite]
    tracks: list[Track]
    backdrop: Backdrop
    camera: np.ndarray  # position in each frame, (T, 2)


NO_WAVES = np.zeros((0, 4), np.float32)


@DATASETS.register_module()
class SyntheticVideoDataset(ClipDataset):
    """Dataset of moving shapes, rendered on demand. It needs no download, and only the motion reveals the label.

    The label is the motion (``metainfo['classes']``), and all motions are equally frequent. Appearance and start
    positions are drawn independently of the label, and every motion begins at the given start, so frame 0 is
    independent of the label. Shapes move by about their own size in 4 to 8 frames.

    Difficulties: ``'plain'``: one shape, orange and blue on dark gray. ``'easy'``: one smaller shape in random colors
    on a gradient. ``'medium'``: two striped shapes on waves. ``'hard'``: four striped shapes that occlude each other,
    and a moving camera. All shapes of a clip have the same motion with different parameters.

    Args:
        length: Number of clips.
        clip_len: Frames per clip.
        size: Side of a frame in pixels.
        difficulty: ``'plain'``, ``'easy'``, ``'medium'`` or ``'hard'``.
        seed: Seed of the content. Use another seed for other clips, e.g. for validation.
        still_share: Share of clips without any motion, as in much real footage. They keep their labels.
        **kwargs: Passed to :class:`ClipDataset`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from pvvae_plugin.registry import DATASETS
        >>> pipeline = [dict(type='FutureDropSampler', temporal_ratio=4), dict(type='PackClip')]
        >>> dataset = DATASETS.build(
        ...     dict(type='SyntheticVideoDataset', length=100, clip_len=9, size=32, pipeline=pipeline)
        ... )
        >>> dataset[0]['inputs'].shape, len(dataset[0]['data_samples'].observed_groups)
        (torch.Size([3, 9, 32, 32]), 3)
        >>> dataset.metainfo['classes'][dataset[1]['data_samples'].label]
        'bounce'
    """

    METAINFO = {'classes': tuple(MOTIONS)}

    def __init__(
        self,
        length: int,
        clip_len: int,
        size: int,
        difficulty: str = 'easy',
        seed: int = 0,
        still_share: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if difficulty not in DIFFICULTIES:
            raise ValueError(f'difficulty must be one of {", ".join(DIFFICULTIES)}, got {difficulty!r}')
        for name, value in (('length', length), ('size', size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} must be a positive integer, got {value!r}')
        if not 0.0 <= still_share <= 1.0:
            raise ValueError(f'still_share must be in [0, 1], got {still_share!r}')
        self.length = length
        self.size = size
        self.still_share = still_share
        self.difficulty = difficulty
        super().__init__(clip_len=clip_len, seed=seed, **kwargs)

    def load_data_list(self) -> list[dict]:
        names = tuple(MOTIONS)
        return [
            {
                'number': number,
                'label': number % len(names),
                'path': f'synthetic/{self.difficulty}/{self.seed}/{number:06d}_{names[number % len(names)]}',
            }
            for number in range(self.length)
        ]

    def load_clip(self, info: dict, rng: np.random.Generator) -> np.ndarray:
        """Render the clip of ``info``. The content depends only on ``seed`` and the clip's number, not on ``rng``."""
        return render(*self._scene(info), size=self.size)

    def positions(self, index: int) -> np.ndarray:
        """Return the positions of a clip's shapes, ``(num_objects, T, 2)``: x to the right and y down, in frame sides.

        Example:
            >>> from pvvae_plugin.datasets import SyntheticVideoDataset
            >>> dataset = SyntheticVideoDataset(length=7, clip_len=9, size=32, difficulty='medium')
            >>> dataset.positions(0).shape  # 2 shapes, 9 frames, x and y
            (2, 9, 2)
        """
        scene = self._scene(self.get_data_info(index))
        tracks = np.stack([np.stack([track.x, track.y], axis=1) for track in scene.tracks])
        return tracks - scene.camera

    def _scene(self, info: dict) -> Scene:
        times = np.arange(self.clip_len) * float(self.frame_interval)
        if self.still_share and numpy_rng(self.seed, info['number'], 'still').random() < self.still_share:
            times = 0 * times
        return draw_scene(
            seed=self.seed,
            number=info['number'],
            motion=tuple(MOTIONS)[info['label']],
            times=times,
            difficulty=self.difficulty,
        )


def draw_scene(seed: int, number: int, motion: str, times: np.ndarray, difficulty: str) -> Scene:
    """Draw the content of a clip.

    Args:
        seed: Seed of the content.
        number: Number of the clip.
        motion: A key of ``MOTIONS``. Frame 0 (time 0) does not depend on it.
        times: Times ``(T,)`` in frames.
        difficulty: A key of ``DIFFICULTIES``.
    """
    level = DIFFICULTIES[difficulty]
    appearance = numpy_rng(seed, number, 'appearance', difficulty)
    movement = numpy_rng(seed, number, 'movement', difficulty)

    backdrop = _draw_backdrop(appearance, level.backdrop)
    sprites = [_draw_sprite(appearance, level, backdrop) for _ in range(level.num_objects)]
    starts = [
        Start(
            x=appearance.uniform(0.25, 0.75),
            y=appearance.uniform(0.25, 0.75),
            angle=appearance.uniform(0, 2 * np.pi),
            radius=appearance.uniform(*level.radius),
        )
        for _ in sprites
    ]
    # Draw the camera before the motions, which use different numbers of draws.
    velocity = movement.uniform(-level.camera_speed, level.camera_speed, size=2)
    tracks = [MOTIONS[motion](start, times, movement) for start in starts]
    return Scene(sprites, tracks, backdrop, camera=times[:, None] * velocity)


def _draw_backdrop(rng: np.random.Generator, kind: str) -> Backdrop:
    if kind == 'dark':
        return Backdrop(np.full((2, 3), 0.1, np.float32), gradient=np.zeros(2, np.float32), waves=NO_WAVES)
    angle = rng.uniform(0, 2 * np.pi)
    strength = rng.uniform(0.5, 1.0)
    waves = NO_WAVES
    if kind == 'waves':
        waves = np.stack(
            [
                rng.uniform(-4, 4, size=3),
                rng.uniform(-4, 4, size=3),
                rng.uniform(0, 2 * np.pi, size=3),
                rng.uniform(0.1, 0.3, size=3),
            ],
            axis=1,
        ).astype(np.float32)
    return Backdrop(
        colors=rng.uniform(0.1, 0.9, size=(2, 3)).astype(np.float32),
        gradient=(strength * np.array([np.cos(angle), np.sin(angle)])).astype(np.float32),
        waves=waves,
    )


def _draw_sprite(rng: np.random.Generator, level: Difficulty, backdrop: Backdrop) -> Sprite:
    colors = level.colors
    if colors is None:
        # Pick the pair with the highest contrast, both to the backdrop and between its two colors.
        pairs = rng.uniform(0, 1, size=(8, 2, 3)).astype(np.float32)
        from_backdrop = np.linalg.norm(pairs - backdrop.colors.mean(0), axis=2).min(1)
        between = np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=1)
        colors = pairs[np.argmax(np.minimum(from_backdrop, between))]
    return Sprite(
        outline=OUTLINES[rng.integers(len(OUTLINES))],
        colors=colors,
        stripes=float(rng.uniform(3, 6)) if level.striped else 0.0,
    )

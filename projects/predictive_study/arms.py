"""What the study compares, and at which scale."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pvvae_plugin.temporal import most_dropped_groups

ROOT = Path(__file__).resolve().parents[2]  # of the checkout
CONFIGS = Path(__file__).resolve().parent / 'configs'


class Arm(NamedTuple):
    """A VAE's objective.

    Attributes:
        title: What figures and tables call it.
        max_drop_ratio: The paper's r; 0 drops nothing.
        diff_weight: Weight of the motion-aware term relative to the squared error.
        finetunes: Whether the last steps train the decoder alone, with nothing dropped.
        padding: What stands in place of dropped latents.
        kl_weight: Weight of the KL divergence.
        candidates: Clips that are drawn for each one of a batch, of which the more it moves the likelier one is kept.
    """

    title: str
    max_drop_ratio: float = 1.0
    diff_weight: float = 1.0
    finetunes: bool = True
    padding: str = 'learnable'
    kl_weight: float = 1e-6
    candidates: int = 1


BASELINE, FULLEST = 'baseline', 'full'
ACCURACY = 'class/accuracy'  # share of clips in which the judge sees the motion that was asked for
RISING = (ACCURACY, 'IS')  # numbers that are better the higher they are
# The first four are the paper's ladder; each of the others changes one thing of the last rung, the last one of the
# first: latents that are made more regular without predicting.
ARMS = {
    'baseline': Arm('reconstruction only', max_drop_ratio=0.0, diff_weight=0.0, finetunes=False),
    'predictive': Arm('+ predictive', diff_weight=0.0, finetunes=False),
    'motion': Arm('+ motion term', finetunes=False),
    'full': Arm('full: + decoder fine-tuning'),
    'drop50': Arm('r = 0.5', max_drop_ratio=0.5),
    'drop75': Arm('r = 0.75', max_drop_ratio=0.75),
    'gaussian': Arm('Gaussian padding', padding='gaussian'),
    'diff4': Arm('motion weight 4', diff_weight=4.0),
    'kl4': Arm('KL 1e-4', kl_weight=1e-4),
    'kl2': Arm('KL 1e-2', kl_weight=1e-2),
    'weighted': Arm('clips weighted by motion', candidates=8),
    'plain_kl2': Arm('reconstruction only, KL 1e-2', 0.0, 0.0, finetunes=False, kl_weight=1e-2),
}
GROUPS = {
    'pair': ['baseline', 'full'],
    'ladder': ['baseline', 'predictive', 'motion', 'full'],
    'ratio': ['baseline', 'drop50', 'drop75', 'full'],
    'padding': ['baseline', 'gaussian', 'full'],
    'knobs': ['baseline', 'full', 'diff4', 'kl4', 'kl2'],
    'control': ['baseline', 'full', 'kl2', 'plain_kl2'],
    'still': ['baseline', 'full', 'diff4', 'weighted'],
    'all': list(ARMS),
}


def same_as(arm: str, num_groups: int) -> str:
    """The first arm that trains alike: of few groups of frames, two ratios may drop equally many."""

    def effect(name: str) -> Arm:
        what = ARMS[name]
        return what._replace(title='', max_drop_ratio=most_dropped_groups(num_groups, what.max_drop_ratio))

    return next(other for other in ARMS if effect(other) == effect(arm))


class Scale(NamedTuple):
    """How large the study is. Every arm takes ``vae_steps``, those of fine-tuning included.

    Attributes:
        vae: Config of the VAE on procedural clips, or on the scale's own data set.
        generator: Config of the generator there.
        on_videos: Configs of both on a folder of videos; None where there are none.
        pretraining_steps: Steps of reconstruction only, which all VAEs of a seed share and go on from.
        vae_steps: Steps of every VAE after that.
        decoder_steps: How many of them train the decoder alone, in arms that fine-tune it.
        generator_steps: Steps of every generator.
        checkpoints: Checkpoints of it that are measured, as divisors of its steps.
        clips: Clips whose latents generators train on.
        clips_per_video: The same for each file of a folder of videos, and of the scale's own data set.
        judge_steps: Steps of the classifier that judges procedural clips.
        probe_clips: Clips that linear probes are fitted on.
        seeds: How many by default.
        jobs: How many processes at once by default.
        grace: Seconds that a training gets to save its state when it is asked to stop.
    """

    vae: Path
    generator: Path
    on_videos: tuple[Path, Path] | None
    pretraining_steps: int
    vae_steps: int
    decoder_steps: int
    generator_steps: int
    checkpoints: tuple[int, ...]
    clips: int
    clips_per_video: int
    judge_steps: int
    probe_clips: int
    seeds: int
    jobs: int
    grace: float


SCALES = {
    'tiny': Scale(
        vae=CONFIGS / 'vae_tiny.py',
        generator=CONFIGS / 'dit_tiny.py',
        on_videos=(CONFIGS / 'vae_tiny_videos.py', CONFIGS / 'dit_tiny_videos.py'),
        pretraining_steps=2000,
        vae_steps=1500,
        decoder_steps=300,
        generator_steps=4000,
        checkpoints=(8, 4, 2, 1),
        clips=8192,
        clips_per_video=32,
        judge_steps=1000,
        probe_clips=1280,
        seeds=2,
        jobs=2,
        grace=45.0,
    ),
    'gpu-small': Scale(
        vae=CONFIGS / 'vae_gpu_small.py',
        generator=CONFIGS / 'dit_gpu_small.py',
        on_videos=(CONFIGS / 'vae_gpu_small_videos.py', CONFIGS / 'dit_gpu_small_videos.py'),
        pretraining_steps=20000,
        vae_steps=20000,
        decoder_steps=4000,
        generator_steps=40000,
        checkpoints=(16, 8, 4, 2, 1),
        clips=32768,
        clips_per_video=128,
        judge_steps=2000,
        probe_clips=4096,
        seeds=3,
        jobs=1,
        grace=45.0,
    ),
    'paper': Scale(
        vae=ROOT / 'configs' / 'pvvae_ucf101.py',
        generator=ROOT / 'configs' / 'dit_pvvae_cached.py',
        on_videos=None,
        pretraining_steps=0,
        vae_steps=100000,
        decoder_steps=50000,
        generator_steps=250000,
        checkpoints=(16, 8, 4, 2, 1),
        clips=0,
        clips_per_video=4,
        judge_steps=0,
        probe_clips=4096,
        seeds=3,
        jobs=1,
        grace=900.0,  # checkpoints of 11 GB
    ),
}


class Settings(NamedTuple):
    """What a study was asked for; a folder holds results of one.

    Attributes:
        scale: Key of :data:`SCALES`.
        difficulty: Of procedural clips.
        videos: Folder with ``train`` and ``val``; None for procedural clips.
        i3d: File of I3D's weights; None for proxies.
        vae_init: Checkpoint that every VAE starts from, in place of pretraining.
        from_scratch: Whether every VAE takes the steps of the pretraining itself, under its own objective.
        still_share: Share of procedural training clips in which nothing moves.
        smoke: Whether to take next to no steps, to see whether it runs.
        gpus: Processes of a run.
        longer: Times that generators train as long as the scale says: a power of two.
    """

    scale: str
    difficulty: str
    videos: str | None
    i3d: str | None
    vae_init: str | None
    from_scratch: bool
    still_share: float
    smoke: bool
    gpus: int
    longer: int


def scale_of(settings: Settings) -> Scale:
    """The scale as the settings change it: with ``smoke`` next to nothing of it."""
    scale = _shortened(settings)
    divisors = [settings.longer * divisor for divisor in scale.checkpoints]
    while divisors[-1] > 1:  # the usual checkpoints, and each doubling after them
        divisors.append(divisors[-1] // 2)
    return scale._replace(generator_steps=settings.longer * scale.generator_steps, checkpoints=tuple(divisors))


def _shortened(settings: Settings) -> Scale:
    """The scale before generators train longer."""
    scale = SCALES[settings.scale]
    if settings.from_scratch:
        scale = scale._replace(pretraining_steps=0, vae_steps=scale.pretraining_steps + scale.vae_steps)
    if not settings.smoke:
        return scale
    return scale._replace(
        pretraining_steps=min(scale.pretraining_steps, 8),
        vae_steps=16,
        decoder_steps=8,
        generator_steps=8,
        checkpoints=(2, 1),
        clips=24,
        clips_per_video=2,
        judge_steps=2,
        probe_clips=24,
    )


def base_configs(settings: Settings) -> tuple[Path, Path]:
    """Files of the VAE's and the generator's config."""
    scale = SCALES[settings.scale]
    return scale.on_videos if settings.videos else (scale.vae, scale.generator)


def has_judge(settings: Settings) -> bool:
    """Whether the data's classes are motions, which a small classifier can tell."""
    return not settings.videos and settings.scale != 'paper'

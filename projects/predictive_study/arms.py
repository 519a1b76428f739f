"""Arms and scales of the study."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pvvae_plugin.temporal import most_dropped_groups

ROOT = Path(__file__).resolve().parents[2]  # root of the checkout
CONFIGS = Path(__file__).resolve().parent / 'configs'


class Arm(NamedTuple):
    """Training objective of a VAE.

    Attributes:
        title: Name in figures and tables.
        max_drop_ratio: The paper's r; 0 disables dropping.
        diff_weight: Weight of the motion-aware term relative to the squared error.
        finetunes: Whether the last steps train only the decoder, without dropping.
        padding: Kind of padding that replaces dropped latents.
        kl_weight: Weight of the KL divergence.
        candidates: Clips drawn per training clip. One is kept, with a probability that grows with its motion.
    """

    title: str
    max_drop_ratio: float = 1.0
    diff_weight: float = 1.0
    finetunes: bool = True
    padding: str = 'learnable'
    kl_weight: float = 1e-6
    candidates: int = 1


BASELINE, FULLEST = 'baseline', 'full'
ACCURACY = 'class/accuracy'  # share of clips in which the judge recognizes the requested motion
RISING = (ACCURACY, 'IS')  # metrics for which higher is better
# The first four arms are the paper's ladder. The others change one setting of `full`, except `plain_kl2`: it changes
# `baseline`, to regularize the latents without prediction.
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
    """Return the first arm that trains identically: with few groups, two ratios may drop the same number."""

    def effect(name: str) -> Arm:
        what = ARMS[name]
        return what._replace(title='', max_drop_ratio=most_dropped_groups(num_groups, what.max_drop_ratio))

    return next(other for other in ARMS if effect(other) == effect(arm))


class Scale(NamedTuple):
    """Size of a study. All arms train for ``vae_steps`` steps, including decoder fine-tuning.

    Attributes:
        vae: Config of the VAE on procedural clips, or on the dataset of the scale.
        generator: Config of the generator on the same data.
        on_videos: Configs of VAE and generator on a folder of videos; None if not supported.
        pretraining_steps: Steps of the reconstruction-only pretraining that all VAEs of a seed share.
        vae_steps: Steps of every VAE after the pretraining.
        decoder_steps: Number of ``vae_steps`` that train only the decoder, in arms that fine-tune it.
        generator_steps: Steps of every generator.
        clips: Number of procedural clips whose latents the generators train on.
        clips_per_video: Number of clips per video for the same purpose, if the data are video files.
        judge_steps: Steps of the classifier that judges procedural clips.
        checkpoints: Measured checkpoints of a generator, as divisors of its steps.
        probe_clips: Number of clips for linear probes.
        seeds: Default number of seeds.
        jobs: Default number of concurrent processes.
        grace: Seconds that a training gets to save a checkpoint when it is asked to stop.
    """

    vae: Path
    generator: Path
    on_videos: tuple[Path, Path] | None
    pretraining_steps: int
    vae_steps: int
    decoder_steps: int
    generator_steps: int
    clips: int
    clips_per_video: int
    judge_steps: int
    checkpoints: tuple[int, ...] = (16, 8, 4, 2, 1)
    probe_clips: int = 4096
    seeds: int = 3
    jobs: int = 1
    grace: float = 45.0


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
    ),
    'gpu-small': Scale(
        vae=CONFIGS / 'vae_gpu_small.py',
        generator=CONFIGS / 'dit_gpu_small.py',
        on_videos=(CONFIGS / 'vae_gpu_small_videos.py', CONFIGS / 'dit_gpu_small_videos.py'),
        pretraining_steps=20000,
        vae_steps=20000,
        decoder_steps=4000,
        generator_steps=40000,
        clips=32768,
        clips_per_video=128,
        judge_steps=2000,
    ),
    'paper': Scale(
        vae=ROOT / 'configs' / 'pvvae_ucf101.py',
        generator=ROOT / 'configs' / 'dit_pvvae_cached.py',
        on_videos=None,
        pretraining_steps=0,
        vae_steps=100000,
        decoder_steps=50000,
        generator_steps=250000,
        clips=0,
        clips_per_video=4,
        judge_steps=0,
        grace=900.0,  # checkpoints of 11 GB
    ),
}


class Settings(NamedTuple):
    """Settings of a study. All results in a folder share the same settings.

    Attributes:
        scale: Key of :data:`SCALES`.
        difficulty: Difficulty of procedural clips.
        videos: Folder with ``train`` and ``val``; None for procedural clips.
        i3d: File with the weights of I3D; None to use proxies.
        vae_init: Checkpoint that every VAE starts from instead of the pretraining.
        from_scratch: Whether the pretraining steps are added to every arm and use its objective.
        still_share: Share of procedural training clips without motion.
        smoke: Whether to run only a few steps, as a smoke test.
        gpus: Number of processes per training.
        longer: Factor on the training steps of generators, a power of two.
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
    """Return the scale with the settings applied."""
    scale = _shortened(settings)
    divisors = [settings.longer * divisor for divisor in scale.checkpoints]
    while divisors[-1] > 1:  # the usual checkpoints, plus one after each doubling
        divisors.append(divisors[-1] // 2)
    return scale._replace(generator_steps=settings.longer * scale.generator_steps, checkpoints=tuple(divisors))


def _shortened(settings: Settings) -> Scale:
    """Apply all settings except ``longer``."""
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
    """Return the config files of the VAE and the generator."""
    scale = SCALES[settings.scale]
    return scale.on_videos if settings.videos else (scale.vae, scale.generator)


def has_judge(settings: Settings) -> bool:
    """Return whether the classes are motions that a small classifier can recognize."""
    return not settings.videos and settings.scale != 'paper'

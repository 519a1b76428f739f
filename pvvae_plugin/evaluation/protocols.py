"""Named evaluation protocols: all settings, other than the videos, that change the value of a metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CHOICES = {
    'resize': ('stretch', 'short-side-crop'),
    'eight_bit': ('round', 'truncate'),
    'ddof': (0, 1),
    'real_clip': ('random', 'middle', 'first'),
}
OF_REAL_CLIPS = ('real_split', 'frame_interval', 'real_clip')  # fields that select clips of a metric's reference


@dataclass(frozen=True)
class Protocol:
    """Evaluation protocol of FVD, KVD and the Inception Score.

    Attributes:
        name: Name in results.
        source: Origin of the protocol.
        num_frames: Frames ``T`` of a clip; the first ``T`` of a longer one. I3D computes one temporal logit for 9 to 16
            frames and the mean of two for 17 to 24, so distances of 16 and 17 frames are not comparable.
        num_samples: Number of clips in each set. Distances decrease with it.
        resize: Resizing to I3D's 224 x 224: ``'stretch'``, or ``'short-side-crop'`` (resize the short side, then crop
            the center). Bilinear, half-pixel centers, no antialiasing.
        value_range: Values of black and white in I3D's input.
        eight_bit: Conversion of generated values to 8 bits, ``'round'`` or ``'truncate'``. Real clips are 8-bit.
        batch_norm_eps: Epsilon of the batch norms of the native I3D. A TorchScript file has its own.
        ddof: Covariances divide by ``N - ddof``.
        real_split: Dataset split of the real clips.
        frame_interval: Frame stride in real videos.
        real_clip: Position of the clip in a real video: ``'random'`` (one keyed draw per video), ``'middle'`` or
            ``'first'``.
        inception_splits: Number of splits whose Inception Scores are averaged.
        ours: Fields that the source does not specify, and fields changed by a custom protocol.

    Example:
        >>> from pvvae_plugin.evaluation import PROTOCOLS
        >>> {name: (protocol.num_frames, protocol.num_samples) for name, protocol in PROTOCOLS.items()}
        {'paper': (17, 2048), 'stylegan-v': (16, 2048), 'videogpt': (16, 256)}
    """

    name: str
    source: str
    num_frames: int
    num_samples: int
    resize: str
    value_range: tuple[float, float]
    eight_bit: str
    batch_norm_eps: float
    ddof: int
    real_split: str
    frame_interval: int
    real_clip: str
    inception_splits: int
    ours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, valid in CHOICES.items():
            value = getattr(self, field)
            if value not in valid or isinstance(value, bool):
                raise ValueError(f'protocol.{field} must be one of {valid}, got {value!r}')
        for field in ('num_frames', 'num_samples', 'frame_interval', 'inception_splits'):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f'protocol.{field} must be a positive integer, got {value!r}')
        ends = self.value_range if isinstance(self.value_range, tuple) else ()
        if not (len(ends) == 2 and all(isinstance(end, (int, float)) for end in ends) and ends[0] < ends[1]):
            raise ValueError(f'protocol.value_range must be two increasing numbers, got {self.value_range!r}')
        if not (isinstance(self.batch_norm_eps, (int, float)) and self.batch_norm_eps > 0):
            raise ValueError(f'protocol.batch_norm_eps must be a positive number, got {self.batch_norm_eps!r}')
        if self.real_split not in ('train', 'val', 'test'):
            raise ValueError(f'protocol.real_split must be train, val or test, got {self.real_split!r}')

    def record(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return dataclasses.asdict(self)


STYLEGAN_V = Protocol(
    name='stylegan-v',
    source='StyleGAN-V (CVPR 2022), its fvd2048_16f and isv2048_ucf; Latte and others follow it',
    num_frames=16,
    num_samples=2048,
    resize='stretch',
    value_range=(-1.0, 1.0),
    eight_bit='round',
    batch_norm_eps=1e-3,
    ddof=0,
    real_split='train',
    frame_interval=1,
    real_clip='random',
    inception_splits=10,
    # StyleGAN-V uses the first 2,048 videos of its list; we use a random subset.
    ours=('which videos',),
)

VIDEOGPT = Protocol(
    name='videogpt',
    source='VideoGPT (2021), its scripts/compute_fvd.py, with its I3D input of half the usual range',
    num_frames=16,
    num_samples=256,
    resize='short-side-crop',
    value_range=(-0.5, 0.5),
    eight_bit='truncate',
    batch_norm_eps=1e-5,
    ddof=1,
    real_split='test',
    frame_interval=1,
    real_clip='random',
    inception_splits=10,
    ours=('inception_splits',),
)

PAPER = dataclasses.replace(
    STYLEGAN_V,
    name='paper',
    source='PV-VAE (arXiv 2605.02134): 17 frames, 2,048 samples; the rest as StyleGAN-V',
    num_frames=17,
    ours=(
        'resize',
        'value_range',
        'eight_bit',
        'batch_norm_eps',
        'ddof',
        'real_split',
        'frame_interval',
        'real_clip',
        'inception_splits',
    ),
)

PROTOCOLS = {protocol.name: protocol for protocol in (PAPER, STYLEGAN_V, VIDEOGPT)}


def resolve_protocol(protocol: str | Mapping[str, Any] | Protocol) -> Protocol:
    """Return a named protocol or build a custom one.

    Args:
        protocol: ``'paper'``, ``'stylegan-v'`` or ``'videogpt'``; or a custom protocol such as
            ``dict(base='stylegan-v', ddof=1)``, which changes fields of ``base`` (default: ``'paper'``) and is named
            ``'custom'`` in results.

    Raises:
        ValueError: If the protocol or a field is unknown, or a value is invalid.

    Example:
        >>> from pvvae_plugin.evaluation import resolve_protocol
        >>> resolve_protocol('stylegan-v').num_frames
        16
        >>> protocol = resolve_protocol(dict(base='stylegan-v', num_frames=32))
        >>> protocol.name, protocol.source
        ('custom', 'stylegan-v with num_frames=32')
    """
    if isinstance(protocol, Protocol):
        return protocol
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise ValueError(
                f'no protocol {protocol!r}; choose from {", ".join(PROTOCOLS)}, or define a custom protocol with '
                "dict(base='paper', ...)"
            )
        return PROTOCOLS[protocol]
    if not isinstance(protocol, Mapping):
        raise ValueError(f"protocol must be a name or dict(base='paper', ...), got {protocol!r}")
    changes = dict(protocol)
    base = resolve_protocol(changes.pop('base', 'paper'))
    settable = {field.name for field in dataclasses.fields(Protocol)} - {'name', 'source', 'ours'}
    unknown = sorted(set(changes) - settable)
    if unknown:
        raise ValueError(f'a protocol has no field {", ".join(unknown)}; choose from {", ".join(sorted(settable))}')
    if isinstance(changes.get('value_range'), list):  # from the command line or JSON
        changes['value_range'] = tuple(changes['value_range'])
    ours = tuple(sorted({*base.ours, *changes}))
    source = f'{base.name} with {", ".join(f"{k}={v!r}" for k, v in sorted(changes.items())) or "nothing changed"}'
    return dataclasses.replace(base, name='custom', source=source, ours=ours, **changes)

"""Rectified flow: the straight path from noise to data, its velocity, and samplers.

Time runs from noise (``t = 0``) to data (``t = 1``): ``x_t = (1 - t) * noise + t * data``. The velocity to learn is
``data - noise`` (Liu et al., "Flow Straight and Fast", 2022). SD3 uses the opposite direction: its noise level is
``sigma = 1 - t``.

A *velocity* is any function ``(x, times) -> dx/dt`` of a batch ``(N, ...)`` and its times ``(N,)``. Samplers call it;
:func:`with_guidance` and :func:`with_conditioned_frames` build one from a network. Pass noise in float32 even for a
half-precision network, because samplers accumulate steps in the dtype of the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

MAX_GUIDANCE = 1e3  # far above any useful scale
Velocity = Callable[[Tensor, Tensor], Tensor]


def interpolate(data: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Return the point ``x_t = (1 - t) * noise + t * data`` of the straight path.

    Args:
        data: ``(N, ...)``.
        noise: Noise of the same shape.
        times: Times in [0, 1]: ``(N,)``, or ``(N, F)`` for one time per frame of data ``(N, C, F, H, W)``.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import interpolate
        >>> data, noise = torch.tensor([[8.0], [8.0]]), torch.zeros(2, 1)
        >>> interpolate(data, noise, times=torch.tensor([0.25, 1.0]))
        tensor([[2.],
                [8.]])
    """
    times = _broadcast_times(times, data)
    return (1.0 - times) * noise + times * data


def velocity_target(data: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity ``data - noise`` of the straight path, which is constant in time.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import interpolate, velocity_target
        >>> data, noise, time = torch.tensor([[8.0]]), torch.tensor([[2.0]]), torch.tensor([0.5])
        >>> interpolate(data, noise, time) + 0.5 * velocity_target(data, noise)  # from the middle to the data
        tensor([[8.]])
    """
    return data - noise


def _broadcast_times(times: Tensor, x: Tensor) -> Tensor:
    if times.shape == x.shape[:1]:
        return times.view(-1, *[1] * (x.ndim - 1))
    if x.ndim == 5 and times.shape == (x.shape[0], x.shape[2]):
        return times[:, None, :, None, None]  # (N, 1, F, 1, 1)
    raise ValueError(
        f'times of shape {tuple(times.shape)} do not match data of shape {tuple(x.shape)}; use (N,), or (N, F) for '
        'data (N, C, F, H, W)'
    )


def sample_times(
    n: int,
    distribution: str = 'uniform',
    rng: torch.Generator | Sequence[torch.Generator] | None = None,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """Draw training times, float32 ``(n,)``.

    Args:
        n: Number of times.
        distribution: ``'uniform'`` on [0, 1), or ``'logit-normal'``, the logistic function of a standard normal, which
            favors the middle of the path (SD3, Esser et al. 2024, section 3.1).
        rng: One generator for all times, or one per time. Times are drawn on the device of the generator.
        device: Device of the result.

    Raises:
        ValueError: If the distribution is unknown, or the number of generators is not ``n``.

    Example:
        >>> from pvvae_plugin.functional.keyed_random import torch_rngs
        >>> from pvvae_plugin.functional.rectified_flow import sample_times
        >>> times = sample_times(2, 'logit-normal', rng=torch_rngs([11, 12], 'flow'))  # one generator per clip
        >>> times.shape, bool(((times > 0) & (times < 1)).all())
        (torch.Size([2]), True)
    """
    if distribution not in ('uniform', 'logit-normal'):
        raise ValueError(f"distribution must be 'uniform' or 'logit-normal', got {distribution!r}")
    draw = torch.rand if distribution == 'uniform' else torch.randn
    if rng is None:
        values = draw(n, dtype=torch.float32, device=device)
    elif isinstance(rng, torch.Generator):
        values = draw(n, generator=rng, dtype=torch.float32, device=rng.device)
    elif len(rng) == n:
        values = torch.cat([draw(1, generator=g, dtype=torch.float32, device=g.device) for g in rng])
    else:
        raise ValueError(f'rng has {len(rng)} generators for {n} times; pass one, or one per time')
    return (values if distribution == 'uniform' else values.sigmoid()).to(device)


def time_grid(num_steps: int, shift: float = 1.0) -> Tensor:
    """Return the step boundaries from noise (0) to data (1), float64 ``(num_steps + 1,)``.

    SD3's timestep shift of an even grid is ``sigma -> s * sigma / (1 + (s - 1) * sigma)`` (section 5.3.2). With
    ``sigma = 1 - t`` it becomes ``t -> t / (s - (s - 1) * t)``.

    Args:
        num_steps: Number of steps, at least 1.
        shift: ``0 < s < 1e6``. 1 gives an even grid; larger values give shorter steps near noise, longer near data.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import time_grid
        >>> time_grid(4)
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000], dtype=torch.float64)
        >>> time_grid(2, shift=3.0)  # the first step, near noise, is shorter
        tensor([0.0000, 0.2500, 1.0000], dtype=torch.float64)
    """
    _check_count('num_inference_steps', num_steps)
    if not 0 < shift < 1e6:
        raise ValueError(f'shift must be positive and below 1e6 (1 for none), got {shift}')
    even = torch.linspace(0.0, 1.0, num_steps + 1, dtype=torch.float64)
    return even / (shift - (shift - 1.0) * even)


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, Integral) or value < 1:
        raise ValueError(f'{name} must be an integer of at least 1, got {value!r}')


def _times_of(x: Tensor, time: float) -> Tensor:
    """Expand one time to the batch, ``(N,)``, in float32 or better."""
    return torch.full(x.shape[:1], time, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)


def euler(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Integrate ``velocity`` from noise to data with Euler steps (one call per step, error of order 1 / steps).

    Args:
        velocity: ``(x, times (N,)) -> (N, ...)``.
        noise: State at the first time, ``(N, ...)``.
        times: Step boundaries ``(num_steps + 1,)``, increasing from 0 to 1, see :func:`time_grid`.

    Returns:
        State at the last time, with the shape of ``noise``.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import euler, time_grid
        >>> data = torch.tensor([[2.0, -1.0]])
        >>> noise = torch.zeros(1, 2)
        >>> euler(lambda x, times: data - noise, noise, time_grid(4))
        tensor([[ 2., -1.]])
    """
    x = noise
    for start, end in pairwise(times.tolist()):
        x = x + (end - start) * velocity(x, _times_of(x, start))
    return x


def heun(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Integrate ``velocity`` with Heun steps (two calls per step, error of order 1 / steps^2).

    Arguments and result are those of :func:`euler`.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import euler, heun, time_grid
        >>> noise, velocity = torch.zeros(1, 1), lambda x, times: 2 * times[:, None]  # x = t^2 ends at 1
        >>> heun(velocity, noise, time_grid(2)), euler(velocity, noise, time_grid(2))
        (tensor([[1.]]), tensor([[0.5000]]))
    """
    x = noise
    for start, end in pairwise(times.tolist()):
        slope = velocity(x, _times_of(x, start))
        guess = x + (end - start) * slope
        x = x + (end - start) / 2 * (slope + velocity(guess, _times_of(x, end)))
    return x


class Solver(NamedTuple):
    """ODE solver for a velocity.

    Attributes:
        integrate: ``(velocity, noise, times) -> data``.
        calls_per_step: Network calls per step. A video takes ``nfe = num_steps * calls_per_step`` calls.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import SOLVERS
        >>> {name: 50 * solver.calls_per_step for name, solver in SOLVERS.items()}  # network calls of 50 steps
        {'euler': 50, 'heun': 100}
    """

    integrate: Callable[[Velocity, Tensor, Tensor], Tensor]
    calls_per_step: int


SOLVERS = {'euler': Solver(euler, 1), 'heun': Solver(heun, 2)}


def check_sampler(
    num_inference_steps: int,
    guidance_scale: float = 1.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
    shift: float = 1.0,
    solver: str = 'euler',
) -> None:
    """Check the settings of the sampler.

    Raises:
        ValueError: If a setting is unknown or out of range.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import check_sampler
        >>> check_sampler(100, guidance_scale=2.0, guidance_interval=(0.0, 1.0), shift=1.0, solver='midpoint')
        Traceback (most recent call last):
        ValueError: solver must be one of euler, heun, got 'midpoint'
    """
    if solver not in SOLVERS:
        raise ValueError(f'solver must be one of {", ".join(SOLVERS)}, got {solver!r}')
    if not abs(guidance_scale) < MAX_GUIDANCE:
        raise ValueError(f'guidance_scale must be within +-{MAX_GUIDANCE:g} (1 for none), got {guidance_scale}')
    low, high = guidance_interval
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(f'guidance_interval must be (low, high) with 0 <= low <= high <= 1, got {guidance_interval}')
    time_grid(num_inference_steps, shift)


def guided_velocity(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Apply classifier-free guidance: ``unconditional + scale * (conditional - unconditional)`` over all channels.

    Scale 1 gives exactly the conditional velocity, scale 0 the unconditional one (Ho & Salimans, 2022).

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import guided_velocity
        >>> guided_velocity(conditional=torch.tensor([3.0]), unconditional=torch.tensor([1.0]), scale=2.0)
        tensor([5.])
    """
    return torch.lerp(unconditional, conditional, scale)  # exact at scales 0 and 1, unlike the formula


def with_guidance(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    labels: Tensor,
    null_label: int,
    scale: float,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Velocity:
    """Return a velocity that guides ``network`` towards ``labels``.

    Inside the interval, conditional and unconditional velocities come from one network call on ``2 N`` clips. Outside
    it, and for scale 1, only the conditional velocity is computed.

    Args:
        network: ``(x, times, labels) -> (N, ...)``, e.g. a :class:`LatentDiT`.
        labels: LongTensor ``(N,)``.
        null_label: Label for "no class".
        scale: See :func:`guided_velocity`.
        interval: Times ``(low, high)``, inclusive, between which guidance is applied (Kynkaanniemi et al., 2024). The
            whole batch must share one time, as in a sampler.

    Raises:
        ValueError: If the interval is not within [0, 1].

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import with_guidance
        >>> network = lambda x, times, labels: labels[:, None].float()  # its velocity is the label
        >>> velocity = with_guidance(network, labels=torch.tensor([3]), null_label=1, scale=2.0)
        >>> velocity(torch.zeros(1, 1), torch.zeros(1))  # 1 + 2 * (3 - 1)
        tensor([[5.]])
    """
    low, high = interval
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(f'interval must be (low, high) with 0 <= low <= high <= 1, got {interval}')
    both_labels = torch.cat([labels, torch.full_like(labels, null_label)])

    def guides(times: Tensor) -> bool:
        if scale == 1.0:
            return False
        # Reading a time synchronizes, so do it only if needed. Conditioned frames are at time 1; min() ignores them.
        return (low, high) == (0.0, 1.0) or low <= times.min().item() <= high

    def velocity(x: Tensor, times: Tensor) -> Tensor:
        if not guides(times):
            return network(x, times, labels)
        conditional, unconditional = network(torch.cat([x, x]), torch.cat([times, times]), both_labels).chunk(2)
        return guided_velocity(conditional, unconditional, scale)

    return velocity


def condition_frames(x: Tensor, clean: Tensor, num_conditioned: int | Tensor) -> Tensor:
    """Replace the first frames of ``x`` with clean ones.

    Args:
        x: ``(N, C, F, H, W)``.
        clean: Clean frames ``(N, C, f, H, W)``, at least as many as are used.
        num_conditioned: Number of clean frames, ``0..F``: an int, or a LongTensor ``(N,)`` with one number per clip.

    Raises:
        ValueError: If ``num_conditioned`` is out of range.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import condition_frames
        >>> noise, clean = torch.zeros(1, 1, 3, 1, 1), torch.ones(1, 1, 3, 1, 1)
        >>> condition_frames(noise, clean, num_conditioned=2).flatten()
        tensor([1., 1., 0.])
    """
    n, _, num_frames = x.shape[:3]
    known = _known_frames(num_conditioned, n, min(num_frames, clean.shape[2]), x.device)[:, None, :, None, None]
    f = known.shape[2]
    return torch.cat([torch.where(known, clean[:, :, :f].to(x.dtype), x[:, :, :f]), x[:, :, f:]], dim=2)


def frame_times(times: Tensor, num_conditioned: int | Tensor, num_frames: int) -> Tensor:
    """Return one time per frame, ``(N, F)``: 1 (data) for conditioned frames, the time of the clip for the rest.

    Args:
        times: One time per clip, ``(N,)``.
        num_conditioned: See :func:`condition_frames`.
        num_frames: ``F``.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import frame_times
        >>> frame_times(torch.tensor([0.5]), num_conditioned=1, num_frames=3)
        tensor([[1.0000, 0.5000, 0.5000]])
    """
    known = _known_frames(num_conditioned, times.shape[0], num_frames, times.device)
    return torch.where(known, torch.ones_like(times)[:, None], times[:, None])


def with_conditioned_frames(velocity: Velocity, clean: Tensor, num_conditioned: int | Tensor) -> Velocity:
    """Return a velocity whose network sees the first frames clean, at time 1, in every call.

    ``velocity`` is called with times ``(N, F)``. The sampler's state in the conditioned frames is meaningless; replace
    it with the clean frames at the end, using :func:`condition_frames`.

    Example:
        >>> from pvvae_plugin.functional.rectified_flow import with_conditioned_frames
        >>> network = lambda x, times: times[:, None, :, None, None].expand_as(x)  # its velocity is the time
        >>> velocity = with_conditioned_frames(network, clean=torch.ones(1, 1, 1, 1, 1), num_conditioned=1)
        >>> velocity(torch.zeros(1, 1, 3, 1, 1), torch.tensor([0.5])).flatten()
        tensor([1.0000, 0.5000, 0.5000])
    """

    def conditioned(x: Tensor, times: Tensor) -> Tensor:
        return velocity(condition_frames(x, clean, num_conditioned), frame_times(times, num_conditioned, x.shape[2]))

    return conditioned


def _known_frames(num_conditioned: int | Tensor, n: int, num_frames: int, device: torch.device) -> Tensor:
    """Return a mask of the conditioned frames, bool ``(N, F)``."""
    counts = torch.as_tensor(num_conditioned).reshape(-1)
    if counts.is_floating_point() or counts.numel() not in (1, n) or counts.min() < 0 or counts.max() > num_frames:
        raise ValueError(
            f'num_conditioned must be an integer or LongTensor ({n},) in 0..{num_frames} (number of clean frames), '
            f'got {num_conditioned}'
        )
    return (torch.arange(num_frames, device=device) < counts.to(device)[:, None]).expand(n, num_frames)

"""Inflation of an image VAE to a video VAE: 2D convolutions become causal 3D ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .predictive_vae import PredictiveVAE

ABSENT_IN_2D = ('padding_token', 'latent_mean', 'latent_std')


@torch.no_grad()
def inflate_(vae: PredictiveVAE, image_state: Mapping[str, Tensor]) -> None:
    """Load the weights of an image VAE into a video VAE, in place.

    The last temporal tap, which sees the current frame, gets the 2D kernel; all other taps are zero. (I3D, Carreira &
    Zisserman 2017, spreads it over all taps, which is not causal.) Temporal upsampling repeats each frame. A latent
    frame is then the encoding of the last frame of its group, and a still image is processed as by the image VAE.

    Args:
        vae: The video VAE, changed in place.
        image_state: State dict of the image VAE under the video VAE's names, with kernels ``(D, C, kh, kw)``.

    Raises:
        ValueError: If a weight is missing, unknown, or has another shape. The VAE is unchanged then.
    """
    new, missing, differing = {}, [], []
    for name, weight in vae.state_dict().items():
        if '.time_conv.' in name:
            new[name] = _repeating(weight)
        elif name not in image_state:
            missing += [name] if name not in ABSENT_IN_2D else []
        elif image_state[name].shape == weight.shape:
            new[name] = image_state[name]
        elif weight.ndim == 5 and image_state[name].shape == weight.shape[:2] + weight.shape[3:]:
            new[name] = torch.zeros_like(weight)
            new[name][:, :, -1] = image_state[name]
        else:
            differing.append(f'{name}: {tuple(image_state[name].shape)} for {tuple(weight.shape)}')
    unknown = sorted(set(image_state) - set(vae.state_dict()))
    if missing or differing or unknown:
        raise ValueError(
            f'the image VAE has another layout: {len(missing)} weights missing ({", ".join(missing[:3])}), '
            f'{len(differing)} of another shape ({"; ".join(differing[:3])}), {len(unknown)} unknown '
            f'({", ".join(unknown[:3])})'
        )
    vae.load_state_dict(new, strict=False)


def _repeating(weight: Tensor) -> Tensor:
    """Return weight ``(2 C, C, 3, 1, 1)`` or bias ``(2 C,)`` of a convolution that repeats each frame."""
    new = torch.zeros_like(weight)
    if weight.ndim == 5:
        channels = torch.arange(weight.shape[1])
        new[channels, channels, -1] = new[channels + weight.shape[1], channels, -1] = 1.0
    return new

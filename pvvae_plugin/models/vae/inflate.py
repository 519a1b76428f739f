"""A video VAE from an image VAE of the same layout: its 2D convolutions become causal 3D ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .predictive_vae import PredictiveVAE

ABSENT_IN_2D = ('padding_token', 'latent_mean', 'latent_std')


@torch.no_grad()
def inflate_(vae: PredictiveVAE, image_state: Mapping[str, Tensor]) -> None:
    """Give a video VAE the weights of an image VAE, so that it does with each frame what that did with an image.

    Of the taps in time only the last, which sees the present, gets the 2D kernel; the others are zero (I3D, Carreira &
    Zisserman 2017, shares it among all, which is not causal). Where time is doubled each frame is repeated. A latent
    frame is then the encoding of the last frame of its group, and a still image comes out as from the image VAE.

    Args:
        vae: The video VAE, changed in place.
        image_state: State dict of the image VAE, by the video VAE's names: kernels ``(D, C, kh, kw)``.

    Raises:
        ValueError: If a weight is missing, unknown, or of another shape, naming the first few; nothing is changed then.
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
            f'this is no image VAE of the same layout: {len(missing)} weights missing ({", ".join(missing[:3])}), '
            f'{len(differing)} of another shape ({"; ".join(differing[:3])}), {len(unknown)} unknown '
            f'({", ".join(unknown[:3])})'
        )
    vae.load_state_dict(new, strict=False)


def _repeating(weight: Tensor) -> Tensor:
    """Weight ``(2 C, C, 3, 1, 1)`` or bias ``(2 C,)`` of a convolution that makes two frames of one, both the same."""
    new = torch.zeros_like(weight)
    if weight.ndim == 5:
        channels = torch.arange(weight.shape[1])
        new[channels, channels, -1] = new[channels + weight.shape[1], channels, -1] = 1.0
    return new

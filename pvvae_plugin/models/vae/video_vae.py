"""VideoVAE: base class for predictive reconstruction (paper, section 3)."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from pvvae_plugin.functional.keyed_random import randn_like
from pvvae_plugin.renaming import renamed_arguments
from pvvae_plugin.temporal import Observed, ObservedGroups, frames_to_groups, groups_to_frames

from .posterior import DiagonalGaussian
from .pretrained import PretrainedMixin

Rngs = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class PredictiveOutput:
    """Result of predictive reconstruction.

    Attributes:
        reconstruction: The whole clip, with observed and dropped frames, ``(N, 3, T, H, W)``.
        posterior: Posterior over the latents up to the last observed group in the batch. Entries for dropped groups
            are meaningless; mask them with ``observed``.
        observed: Groups that the encoder saw, per clip.

    Example:
        >>> from pvvae_plugin.models import PredictiveVAE
        >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
        >>> output = vae(torch.zeros(1, 3, 9, 32, 32), observed=2)
        >>> output.reconstruction.shape, output.posterior.mean.shape  # dropped groups have no latents
        (torch.Size([1, 3, 9, 32, 32]), torch.Size([1, 4, 2, 2, 2]))
        >>> output.observed.mask.tolist()
        [[True, True, False]]
    """

    reconstruction: Tensor
    posterior: DiagonalGaussian
    observed: ObservedGroups


class VideoVAE(PretrainedMixin, BaseModule):
    """Base class of video VAEs for predictive training, which pads dropped latents (paper, section 3).

    A subclass implements :meth:`encode` and :meth:`decode`, and calls :meth:`add_padding` after building its networks.

    Args:
        latent_channels: Channels ``C`` of the latents.
        temporal_ratio: ``p_t``, frames per latent frame (the first latent frame covers one frame).
        spatial_ratio: ``p_s``, pixels per latent position along each side.
        init_cfg: MMEngine initialization config.

    Attributes:
        arguments (dict): Constructor arguments of the subclass as plain values, for :meth:`save_pretrained`.
        temporal_reach (float): Number of past latent frames that the last frame of a group depends on.
        is_causal (bool): True if encoding a prefix gives the prefix of the encoding.
        encodes_longest (bool): If the clips of a batch observe different numbers of groups, encode all clips up to the
            largest number instead of one pass per number. For causal networks only.
        padding_token: Parameter ``(C,)`` that replaces a dropped latent; None for Gaussian noise.
        knows_statistics (bool): True if ``latent_mean`` and ``latent_std`` were loaded with the weights.
        trained_frames (int | None): Length of the training clips, if known.
        source (dict[str, str] | None): ``path`` and ``sha256`` of weights loaded by the constructor.
        latent_mean: Buffer ``(C,)`` used by :meth:`normalize_latents`; 0 until statistics are set.
        latent_std: Buffer ``(C,)``; 1 until statistics are set.

    Example:
        >>> from pvvae_plugin.models import DiagonalGaussian, VideoVAE
        >>> class PixelVAE(VideoVAE):  # latents are the pixels
        ...     last_layer = None
        ...     def encode(self, video):
        ...         return DiagonalGaussian(video, torch.full_like(video, -30.0))
        ...     def decode(self, latents):
        ...         return latents
        >>> vae = PixelVAE(latent_channels=3, temporal_ratio=1, spatial_ratio=1)
        >>> vae.add_padding('learnable')
        >>> vae.predict(torch.zeros(1, 3, 2, 8, 8), num_frames=5).shape
        torch.Size([1, 3, 5, 8, 8])
    """

    temporal_reach: float = math.inf
    is_causal = True
    encodes_longest = False

    def __init__(
        self,
        latent_channels: int,
        temporal_ratio: int,
        spatial_ratio: int,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.latent_channels = latent_channels
        self.temporal_ratio = temporal_ratio
        self.spatial_ratio = spatial_ratio
        self.register_buffer('latent_mean', torch.zeros(latent_channels))
        self.register_buffer('latent_std', torch.ones(latent_channels))

    def add_padding(self, padding: str) -> None:
        """Set the padding of dropped latents.

        Args:
            padding: ``'learnable'``, one trained vector ``(C,)`` shared by all positions and times (the paper's final
                model), or ``'gaussian'``, standard normal noise.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> vae.padding_token.shape
            torch.Size([4])
            >>> vae.add_padding('gaussian')
            >>> vae.padding_token is None
            True
        """
        if padding not in ('learnable', 'gaussian'):
            raise ValueError(f"padding must be 'learnable' or 'gaussian', got {padding!r}")
        learned = padding == 'learnable'
        self.padding_token = nn.Parameter(0.02 * torch.randn(self.latent_channels)) if learned else None

    @abstractmethod
    def encode(self, video: Tensor) -> DiagonalGaussian:
        """Return the posterior over the latents ``(N, C, t, h, w)`` of a video ``(N, 3, T, H, W)`` in [-1, 1]."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Decode raw latents ``(N, C, t, h, w)`` to a video ``(N, 3, T, H, W)``."""

    @renamed_arguments(num_observed_groups='observed', generator='rng')
    def forward(self, video: Tensor, observed: Observed = None, rng: Rngs = None) -> PredictiveOutput:
        """Reconstruct each clip from its observed groups and predict the dropped ones (paper, section 3).

        Args:
            video: ``(N, 3, T, H, W)`` in [-1, 1]. Dropped frames are ignored.
            observed: Groups that the encoder sees, see :meth:`ObservedGroups.of`; all if None.
            rng: Random generator for posterior noise and Gaussian padding: one for the batch, or one per clip.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> video = torch.zeros(2, 3, 9, 32, 32)  # 3 groups
            >>> vae(video, observed=[1, 3]).reconstruction.shape  # one number of leading groups per clip
            torch.Size([2, 3, 9, 32, 32])
        """
        num_groups = self.check_video(video)
        observed = ObservedGroups.of(observed, len(video), num_groups, video.device)
        # 1. Encode the observed groups.
        posterior = self._encode_observed(video, observed)
        # 2. Replace dropped groups with padding.
        latents = self.pad_latents(posterior.sample(rng, num_groups), num_groups, observed, rng)
        # 3. Decode the whole clip.
        return PredictiveOutput(self.decode(latents), posterior, observed)

    def _encode_observed(self, video: Tensor, observed: ObservedGroups) -> DiagonalGaussian:
        """Encode the observed frames. Clips that observe the same number of groups share one pass."""
        if not observed.are_leading:
            video = observed.hold_dropped(video, self.temporal_ratio)
        counts = observed.extents
        if len(set(counts)) == 1 or self.encodes_longest:
            return self.encode(video[:, :, : groups_to_frames(max(counts), self.temporal_ratio)])
        order = sorted(range(len(counts)), key=counts.__getitem__)
        back = sorted(range(len(order)), key=order.__getitem__)
        order, back = torch.tensor([order, back]).to(video.device, non_blocking=True)
        means, logvars, start = [], [], 0
        video = video.index_select(0, order)
        for count in sorted(set(counts)):
            clips = video[start : start + counts.count(count), :, : groups_to_frames(count, self.temporal_ratio)]
            posterior = self.encode(clips)
            rest = (0, 0, 0, 0, 0, max(counts) - count)
            means.append(torch.nn.functional.pad(posterior.mean, rest))
            logvars.append(torch.nn.functional.pad(posterior.logvar, rest))
            start += len(clips)
        return DiagonalGaussian(torch.cat(means).index_select(0, back), torch.cat(logvars).index_select(0, back))

    @renamed_arguments(num_observed_groups='observed', generator='rng')
    def pad_latents(self, latents: Tensor, num_groups: int, observed: Observed = None, rng: Rngs = None) -> Tensor:
        """Replace the latents of dropped groups with padding.

        Args:
            latents: ``(N, C, g, h, w)``, up to the last observed group. Entries of dropped groups are ignored and get
                no gradient.
            num_groups: Latent frames ``G`` of the result.
            observed: Latents that each clip keeps, see :meth:`ObservedGroups.of`; the first ``g`` if None.
            rng: Random generator for Gaussian padding: one for the batch, or one per clip.

        Returns:
            ``(N, C, G, h, w)``.

        Raises:
            ValueError: If an observed group has no latent.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> latents = vae.encode(torch.zeros(1, 3, 5, 32, 32)).mode()  # 2 groups
            >>> full = vae.pad_latents(latents, num_groups=3)
            >>> torch.equal(full[:, :, :2], latents), torch.equal(full[0, :, 2, 0, 0], vae.padding_token)
            (True, True)
        """
        n, c, g, h, w = latents.shape
        observed = ObservedGroups.of(g if observed is None else observed, n, num_groups, latents.device)
        if max(observed.extents) > g:
            raise ValueError(f'{max(observed.extents)} groups are observed, but there are only {g} latent frames')
        longest = num_groups - min(observed.extents)
        if longest > self.temporal_reach:
            warnings.warn(
                f'{longest} groups are padded, but the decoder sees only {self.temporal_reach:g} latent frames '
                'back, so the last ones do not depend on the observed frames. Use more decoder_blocks or drop less.',
                stacklevel=2,
            )
        if self.padding_token is None:
            padding = randn_like(latents.new_empty(n, c, num_groups, h, w), rng)
        else:
            padding = self.padding_token.to(latents.dtype).view(1, c, 1, 1, 1).expand(n, c, num_groups, h, w)
        # where() gives the token a zero gradient even when nothing is dropped; DistributedDataParallel needs one.
        full = torch.nn.functional.pad(latents, (0, 0, 0, 0, 0, num_groups - g))
        return torch.where(observed.mask.view(n, 1, num_groups, 1, 1), full, padding)

    def predict(self, observed_video: Tensor, num_frames: int) -> Tensor:
        """Predict the rest of a clip.

        Args:
            observed_video: First frames of the clip, ``(N, 3, T', H, W)`` in [-1, 1].
            num_frames: Length ``T`` of the result, including the observed frames.

        Returns:
            ``(N, 3, T, H, W)``: the reconstruction of the observed frames, followed by the prediction.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> vae.predict(torch.zeros(1, 3, 5, 32, 32), num_frames=17).shape
            torch.Size([1, 3, 17, 32, 32])
        """
        num_groups = frames_to_groups(num_frames, self.temporal_ratio)
        if num_frames < observed_video.shape[2]:
            raise ValueError(
                f'num_frames is {num_frames}, but must be at least {observed_video.shape[2]}, the number of observed '
                'frames'
            )
        return self.decode(self.pad_latents(self.encode(observed_video).mode(), num_groups))

    def normalize_latents(self, latents: Tensor) -> Tensor:
        """Normalize raw latents ``(N, C, t, h, w)`` to zero mean and unit standard deviation per channel.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> vae.latent_mean += 1.0
            >>> vae.latent_std *= 2.0
            >>> vae.normalize_latents(torch.full((1, 4, 1, 1, 1), 5.0)).flatten()
            tensor([2., 2., 2., 2.])
        """
        return (latents - _per_channel(self.latent_mean, latents)) / _per_channel(self.latent_std, latents)

    def denormalize_latents(self, latents: Tensor) -> Tensor:
        """Invert :meth:`normalize_latents`.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> latents = vae.encode(torch.zeros(1, 3, 5, 32, 32)).mode()
            >>> torch.allclose(vae.denormalize_latents(vae.normalize_latents(latents)), latents)
            True
        """
        return latents * _per_channel(self.latent_std, latents) + _per_channel(self.latent_mean, latents)

    @property
    @abstractmethod
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution. The adaptive GAN weight compares gradients at it."""

    def freeze_encoder(self) -> None:
        """Train the decoder only (stage 3): freeze the encoder and the padding token.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> vae.freeze_encoder()
            >>> {name.split('.')[0] for name, parameter in vae.named_parameters() if parameter.requires_grad}
            {'decoder'}
        """
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith('decoder.'))

    @property
    def temporal_compression_ratio(self) -> int:
        """``p_t`` under diffusers' name."""
        return self.temporal_ratio

    @property
    def spatial_compression_ratio(self) -> int:
        """``p_s`` under diffusers' name."""
        return self.spatial_ratio

    def pad_sides(self, video: Tensor) -> Tensor:
        """Repeat the last row and column of ``(N, 3, T, H, W)`` until both sides are multiples of the spatial ratio.

        Crop the decoded video back to size: ``vae.decode(latents)[..., :H, :W]``.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> vae.pad_sides(torch.zeros(1, 3, 9, 30, 50)).shape  # spatial_ratio is 16
            torch.Size([1, 3, 9, 32, 64])
        """
        down, right = (-side % self.spatial_ratio for side in video.shape[-2:])
        return torch.nn.functional.pad(video, (0, right, 0, down, 0, 0), mode='replicate')

    def check_video(self, video: Tensor) -> int:
        """Check a video and return its number of groups.

        Raises:
            ValueError: If it is not float ``(N, 3, 1 + k * p_t, H, W)`` with sides divisible by ``p_s``.
        """
        if video.ndim != 5 or video.shape[1] != 3 or not len(video):
            raise ValueError(f'a video tensor must be (N, 3, T, H, W) with N >= 1, got shape {tuple(video.shape)}')
        if not video.is_floating_point():
            raise ValueError(f'a video must be float in [-1, 1], got {video.dtype}: use video / 127.5 - 1 for uint8')
        for side, length in zip(('height', 'width'), video.shape[-2:], strict=True):
            if length < 1 or length % self.spatial_ratio:
                below = max(1, length // self.spatial_ratio) * self.spatial_ratio
                raise ValueError(
                    f'{side} {length} is not divisible by the spatial ratio {self.spatial_ratio}: '
                    f'resize or crop to {below} or {below + self.spatial_ratio}, or pad with pad_sides()'
                )
        return frames_to_groups(video.shape[2], self.temporal_ratio)

    def check_latents(self, latents: Tensor) -> None:
        """Check the type and shape of latents.

        Raises:
            TypeError: If ``latents`` is not a tensor.
            ValueError: If it is not float ``(N, C, t, h, w)``, or is empty.
        """
        if not isinstance(latents, Tensor):
            kind = type(latents).__name__
            raise TypeError(f'latents must be a tensor, got {kind}: call mode() or sample() of a posterior')
        wanted = f'latents must be float (N, {self.latent_channels}, t, h, w)'
        if latents.ndim != 5 or latents.shape[1] != self.latent_channels or not latents.numel():
            raise ValueError(f'{wanted} and not empty, got shape {tuple(latents.shape)}')
        if not latents.is_floating_point():
            raise ValueError(f'{wanted}, got {latents.dtype}')


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(1, -1, 1, 1, 1)

"""PredictiveVAE: a causal video VAE that can finish a clip from its first groups (paper, section 3)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from pvvae_plugin.functional.keyed_random import randn_like
from pvvae_plugin.registry import MODELS
from pvvae_plugin.temporal import frames_to_groups, groups_to_frames, observed_counts, observed_mask

from .coders import Decoder, Encoder
from .guards import fault_here
from .memory import Memory, State
from .parts import decode_in_parts, encode_in_parts
from .posterior import DiagonalGaussian

Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True)
class PredictiveOutput:
    """What a predictive VAE makes of a clip.

    Attributes:
        reconstruction: The whole clip, observed and dropped frames alike, ``(N, 3, T, H, W)``.
        posterior: Over the latents of the longest observed prefix of the batch. Past a clip's own observed groups it
            means nothing: mask with ``num_observed_groups``.
        num_observed_groups: LongTensor ``(N,)``.
        temporal_ratio: Frames of each group but the first.
    """

    reconstruction: Tensor
    posterior: DiagonalGaussian
    num_observed_groups: Tensor
    temporal_ratio: int


@MODELS.register_module()
class PredictiveVAE(BaseModule):
    """Causal convolutional video VAE with padding for dropped groups.

    The layout of stages is the paper's: two that halve time and space, then two that halve space only, mirrored in
    the decoder. Widths, depths, norms and the shape of the padding token are not stated there: ours.

    Args:
        latent_channels: Channels ``C`` of the latents.
        encoder_widths: Channels at each level, from full resolution to latents: one more than there are stages.
        decoder_widths: The same for the decoder, in the same order.
        encoder_blocks: Residual blocks at each level of the encoder.
        decoder_blocks: Residual blocks at each level of the decoder.
        strides: (time, space) stride of each stage of the encoder.
        patch_size: Side of the squares of pixels folded into channels before the first convolution. 1 is the paper's
            network; 2 or 4 spare a small machine the full-resolution levels.
        attention: Attention within each frame, at the latent resolution.
        padding: What stands in for dropped latents: ``'learnable'``, one trained vector ``(C,)`` for every place and
            time (the paper's final model), or ``'gaussian'``, standard normal noise.
        gradient_checkpointing: Recompute activations in the backward pass: less memory for one more forward pass.
        pixels_at_once: Without gradients, larger videos pass in parts of about so many pixels (clips x frames x height
            x width), with the same result in less memory: fewer clips, then fewer frames at once, then tiles.
        compile: Compile each block of both coders with ``torch.compile`` the first time it is used, which takes
            minutes: for a GPU. Results are the same to rounding.
        decode_dtype: ``'bfloat16'`` for :meth:`decode` to compute in it where no gradients are wanted: faster on a GPU,
            with a difference too small to see. Encoding keeps its precision, because a generator would learn the
            error. None: as the weights are.
        init_cfg: As for every MMEngine module.

    Attributes:
        latent_channels: ``C``.
        temporal_ratio: ``p_t``, frames for each latent frame.
        spatial_ratio: ``p_s``, pixels for each side of a latent.
        latent_mean: Buffer ``(C,)`` used by :meth:`normalize_latents`; 0 until statistics are set.
        latent_std: Buffer ``(C,)``; 1 until statistics are set.
    """

    def __init__(
        self,
        latent_channels: int = 64,
        encoder_widths: Sequence[int] = (64, 128, 256, 512, 896),
        decoder_widths: Sequence[int] = (96, 192, 384, 768, 1024),
        encoder_blocks: int = 2,
        decoder_blocks: int = 3,
        strides: Sequence[tuple[int, int]] = ((2, 2), (2, 2), (1, 2), (1, 2)),
        patch_size: int = 1,
        attention: bool = True,
        padding: str = 'learnable',
        gradient_checkpointing: bool = False,
        pixels_at_once: int = 17 * 256 * 256,
        compile: bool = False,
        decode_dtype: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, widths in (('encoder_widths', encoder_widths), ('decoder_widths', decoder_widths)):
            if len(widths) != len(strides) + 1:
                raise ValueError(f'{name} needs {len(strides) + 1} numbers for {len(strides)} strides, got {widths}')
        if any(s not in (1, 2) for stride in strides for s in stride):
            raise ValueError(f'strides are pairs (time, space) of 1 or 2, got {strides}')
        if min(encoder_blocks, decoder_blocks) < 1:
            raise ValueError(
                f'encoder_blocks and decoder_blocks must be positive, got {encoder_blocks}, {decoder_blocks}'
            )
        if padding not in ('learnable', 'gaussian'):
            raise ValueError(f"padding must be 'learnable' or 'gaussian', got {padding!r}")
        if pixels_at_once < 1:
            raise ValueError(f'pixels_at_once must be positive, got {pixels_at_once}')
        if decode_dtype not in (None, 'bfloat16'):
            raise ValueError(f"decode_dtype must be 'bfloat16' or None, got {decode_dtype!r}")
        if (fault := fault_here()) is not None:
            warnings.warn(fault, stacklevel=2)
        self.pixels_at_once = pixels_at_once
        self.decode_dtype = decode_dtype
        self.latent_channels = latent_channels
        self.temporal_ratio = math.prod(time for time, _ in strides)
        self.spatial_ratio = patch_size * math.prod(space for _, space in strides)
        self.encoder = Encoder(encoder_widths, encoder_blocks, strides, patch_size, latent_channels, attention)
        self.decoder = Decoder(decoder_widths, decoder_blocks, strides, patch_size, latent_channels, attention)
        self.encoder.gradient_checkpointing = self.decoder.gradient_checkpointing = gradient_checkpointing
        self.padding_token = nn.Parameter(0.02 * torch.randn(latent_channels)) if padding == 'learnable' else None
        self.register_buffer('latent_mean', torch.zeros(latent_channels))
        self.register_buffer('latent_std', torch.ones(latent_channels))
        self.to(memory_format=torch.channels_last_3d)
        self.compiled = compile
        if compile:
            self.encoder.compile_blocks()
            self.decoder.compile_blocks()

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution, at which an adaptive GAN weight compares gradients."""
        return self.decoder.out.weight

    def check_video(self, video: Tensor) -> int:
        """Number of groups of ``video``.

        Raises:
            ValueError: If it is not float ``(N, 3, 1 + k * p_t, H, W)`` with sides that divide by ``p_s``.
        """
        if video.ndim != 5 or video.shape[1] != 3:
            raise ValueError(f'a video tensor is (N, 3, T, H, W), got shape {tuple(video.shape)}')
        if not video.is_floating_point():
            raise ValueError(f'a video is float in [-1, 1], got {video.dtype}: divide bytes by 127.5 and subtract 1')
        for side, length in zip(('height', 'width'), video.shape[-2:], strict=True):
            if length < 1 or length % self.spatial_ratio:
                below = max(1, length // self.spatial_ratio) * self.spatial_ratio
                raise ValueError(
                    f'{side} {length} does not divide by the spatial ratio {self.spatial_ratio}: '
                    f'resize or crop to {below} or {below + self.spatial_ratio}, or pad with pad_sides()'
                )
        return frames_to_groups(video.shape[2], self.temporal_ratio)

    def pad_sides(self, video: Tensor) -> Tensor:
        """Repeat the last row and column of ``(N, 3, T, H, W)`` until its sides divide by the spatial ratio.

        Crop what is decoded: ``vae.decode(latents)[..., :H, :W]``.
        """
        down, right = (-side % self.spatial_ratio for side in video.shape[-2:])
        return torch.nn.functional.pad(video, (0, right, 0, down, 0, 0), mode='replicate')

    def encode(self, video: Tensor) -> DiagonalGaussian:
        """Posterior over the latents ``(N, C, t, h, w)`` of a video ``(N, 3, T, H, W)`` in [-1, 1]."""
        self.check_video(video)
        if torch.is_grad_enabled():
            return self._encode(video, None)
        return _posterior(encode_in_parts(self, self._prepare(video)))

    def _encode(self, video: Tensor, memory: Memory | None) -> DiagonalGaussian:
        return _posterior(self.encoder(self._prepare(video), memory))

    def _prepare(self, video: Tensor) -> Tensor:
        return video.to(self.last_layer.dtype).contiguous(memory_format=torch.channels_last_3d)

    def decode(self, latents: Tensor) -> Tensor:
        """Video ``(N, 3, T, H, W)`` of raw latents ``(N, C, t, h, w)``."""
        if self.decode_dtype and not torch.is_grad_enabled():
            with torch.autocast(latents.device.type, getattr(torch, self.decode_dtype)):
                return self._decode(latents).to(latents.dtype)
        return self._decode(latents)

    def _decode(self, latents: Tensor) -> Tensor:
        latents = self._check_latents(latents)
        return self.decoder(latents) if torch.is_grad_enabled() else decode_in_parts(self, latents)

    def _check_latents(self, latents: Tensor) -> Tensor:
        if latents.ndim != 5 or latents.shape[1] != self.latent_channels:
            raise ValueError(f'latents are (N, {self.latent_channels}, t, h, w), got shape {tuple(latents.shape)}')
        return latents.contiguous(memory_format=torch.channels_last_3d)

    def encode_chunk(self, video: Tensor, state: State | None = None) -> tuple[DiagonalGaussian, State]:
        """Encode a long video a chunk at a time; all chunks together give what one pass gives.

        Args:
            video: The next frames, ``(N, 3, T, H, W)`` in [-1, 1]: first ``1 + k * p_t`` of them, then ``k * p_t``.
            state: What the chunk before returned; None for the first.

        Returns:
            Posterior over this chunk's latents, and the state for the next one.

        Raises:
            ValueError: If the chunk has another length, or the state is of another network.
        """
        self._check_chunk(video, is_start=state is None)
        memory = Memory(state)
        return self._encode(video, memory), memory.state()

    def decode_chunk(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decode a long video a chunk at a time; all chunks together give what one pass gives.

        Args:
            latents: The next latents, raw, ``(N, C, t, h, w)``, of any length ``t``.
            state: What the chunk before returned; None for the first.

        Returns:
            This chunk's frames, ``1 + (t - 1) * p_t`` of the first and ``t * p_t`` of each other, and the state for
            the next one.

        Raises:
            ValueError: If the state is of another network.
        """
        memory = Memory(state)
        return self.decoder(self._check_latents(latents), memory), memory.state()

    def encode_stream(self, frames: Iterable[Tensor], groups_per_chunk: int = 1) -> Iterator[DiagonalGaussian]:
        """Encode a video of any length from an iterator over its frames, in memory that does not grow with it.

        Args:
            frames: ``(N, 3, H, W)`` in [-1, 1] each, ``1 + k * p_t`` in all.
            groups_per_chunk: Latent frames to make at once.

        Yields:
            Posteriors over ``groups_per_chunk`` latents, the last perhaps over fewer.

        Raises:
            ValueError: If frames are left over at the end that make no group.
        """
        if groups_per_chunk < 1:
            raise ValueError(f'groups_per_chunk must be positive, got {groups_per_chunk}')
        state, waiting, done = None, [], 0
        for frame in frames:
            waiting.append(frame)
            wanted = groups_per_chunk * self.temporal_ratio - (0 if state else self.temporal_ratio - 1)
            if len(waiting) == wanted:
                posterior, state = self.encode_chunk(torch.stack(waiting, dim=2), state)
                done, waiting = done + len(waiting), []
                yield posterior
        if waiting:
            frames_to_groups(done + len(waiting), self.temporal_ratio)  # refuses frames that make no group
            yield self.encode_chunk(torch.stack(waiting, dim=2), state)[0]

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decode a video of any length from an iterator over its latents, in memory that does not grow with it.

        Args:
            latents: Raw, ``(N, C, t, h, w)`` each, of any lengths.

        Yields:
            Frames ``(N, 3, T, H, W)`` of each.
        """
        state = None
        for chunk in latents:
            video, state = self.decode_chunk(chunk, state)
            yield video

    def _check_chunk(self, video: Tensor, is_start: bool) -> None:
        if is_start:
            self.check_video(video)
            return
        if video.ndim != 5 or not video.shape[2] or video.shape[2] % self.temporal_ratio:
            raise ValueError(
                f'a chunk after the first has k * {self.temporal_ratio} frames, (N, 3, T, H, W), got shape '
                f'{tuple(video.shape)}'
            )
        self.check_video(video[:, :, :1])

    def pad_latents(
        self,
        latents: Tensor,
        num_groups: int,
        num_observed_groups: int | Tensor | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Put padding where groups were dropped.

        Args:
            latents: ``(N, C, g, h, w)``, of the observed groups; ``g`` may exceed a clip's own number.
            num_groups: Latent frames ``G`` of the result.
            num_observed_groups: How many of its latents each clip keeps, int or LongTensor ``(N,)``; ``g`` if None.
            generator: For Gaussian padding: one, or one for each clip.

        Returns:
            ``(N, C, G, h, w)``. What stood past a clip's observed groups has no influence on it, nor a gradient.
        """
        n, c, g, h, w = latents.shape
        counts = observed_counts(g if num_observed_groups is None else num_observed_groups, n, num_groups)
        if max(counts) > g:
            raise ValueError(f'{max(counts)} observed groups asked of latents that have {g}')
        longest = num_groups - min(counts)
        if longest > self.decoder.temporal_reach:
            warnings.warn(
                f'{longest} groups are padded, but the decoder sees only {self.decoder.temporal_reach:g} latent frames '
                'back: the last ones cannot know what was observed. Use more decoder_blocks or drop less.',
                stacklevel=2,
            )
        if self.padding_token is None:
            padding = randn_like(latents.new_empty(n, c, num_groups, h, w), generator)
        else:
            padding = self.padding_token.to(latents.dtype).view(1, c, 1, 1, 1).expand(n, c, num_groups, h, w)
        # where() also gives the token a zero gradient when nothing is dropped: DistributedDataParallel waits for one.
        mask = observed_mask(counts, num_groups, latents.device).view(n, 1, num_groups, 1, 1)
        full = torch.nn.functional.pad(latents, (0, 0, 0, 0, 0, num_groups - g))
        return torch.where(mask, full, padding)

    def forward(
        self, video: Tensor, num_observed_groups: int | Tensor | None = None, generator: Generators = None
    ) -> PredictiveOutput:
        """Encode the observed groups of each clip, pad, and decode the whole clip.

        Clips that observe the same number are encoded together, and nothing is spent on dropped frames.

        Args:
            video: ``(N, 3, T, H, W)`` in [-1, 1]. Dropped frames are not looked at.
            num_observed_groups: int or LongTensor ``(N,)``, each in ``1..G``; None where nothing is dropped.
            generator: For the posterior's noise and Gaussian padding: one, or one for each clip.
        """
        num_groups = self.check_video(video)
        counts = observed_counts(num_observed_groups, video.shape[0], num_groups)
        observed = torch.tensor(counts, device=video.device)
        posterior = self._encode_observed(video, counts)
        latents = self.pad_latents(posterior.sample(generator, num_groups), num_groups, observed, generator)
        return PredictiveOutput(self.decode(latents), posterior, observed, self.temporal_ratio)

    def _encode_observed(self, video: Tensor, counts: Sequence[int]) -> DiagonalGaussian:
        """Posterior over the latents of the longest prefix; past a clip's own it means nothing."""
        if len(set(counts)) == 1 or self.compiled:  # every number of clips would be compiled anew
            return self.encode(video[:, :, : groups_to_frames(max(counts), self.temporal_ratio)])
        order, means, logvars = [], [], []
        for count in sorted(set(counts)):
            clips = [place for place, own in enumerate(counts) if own == count]
            posterior = self.encode(video[clips, :, : groups_to_frames(count, self.temporal_ratio)])
            rest = (0, 0, 0, 0, 0, max(counts) - count)
            means.append(torch.nn.functional.pad(posterior.mean, rest))
            logvars.append(torch.nn.functional.pad(posterior.logvar, rest))
            order.extend(clips)
        back = torch.tensor(order, device=video.device).argsort()
        return DiagonalGaussian(torch.cat(means)[back], torch.cat(logvars)[back])

    def predict(self, observed_video: Tensor, num_frames: int) -> Tensor:
        """Finish a clip.

        Args:
            observed_video: Its first frames, ``(N, 3, T', H, W)`` in [-1, 1].
            num_frames: Length ``T`` of the result, observed frames included.

        Returns:
            ``(N, 3, T, H, W)``: the observed frames reconstructed, the rest predicted.
        """
        num_groups = frames_to_groups(num_frames, self.temporal_ratio)
        if num_frames < observed_video.shape[2]:
            raise ValueError(f'cannot predict {num_frames} frames from {observed_video.shape[2]} observed ones')
        return self.decode(self.pad_latents(self.encode(observed_video).mode(), num_groups))

    def normalize_latents(self, latents: Tensor) -> Tensor:
        """Raw latents ``(N, C, t, h, w)`` to zero mean and unit deviation for each channel."""
        return (latents - _per_channel(self.latent_mean, latents)) / _per_channel(self.latent_std, latents)

    def denormalize_latents(self, latents: Tensor) -> Tensor:
        """Inverse of :meth:`normalize_latents`."""
        return latents * _per_channel(self.latent_std, latents) + _per_channel(self.latent_mean, latents)


def _posterior(moments: Tensor) -> DiagonalGaussian:
    mean, logvar = moments.chunk(2, dim=1)
    return DiagonalGaussian(mean, logvar.clamp(-30.0, 20.0))


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).view(1, -1, 1, 1, 1)

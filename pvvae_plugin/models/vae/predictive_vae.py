"""PredictiveVAE: a causal video VAE that predicts the rest of a clip from its first groups (paper, section 3)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from pvvae_plugin.devices import fault_here
from pvvae_plugin.registry import MODELS
from pvvae_plugin.temporal import frames_to_groups

from .coders import Decoder, Encoder
from .posterior import DiagonalGaussian
from .streaming import FeatureCache, State
from .tiling import Layout, TiledState, check_pixels, decode_in_parts, decode_tiled, encode_in_parts, encode_tiled
from .video_vae import VideoVAE

AnyState = State | TiledState


@MODELS.register_module()
class PredictiveVAE(VideoVAE):
    """Causal convolutional video VAE with padding for dropped groups.

    The stages follow the paper: two halve time and space, then two halve space only; the decoder mirrors them. The
    paper does not state widths, depths, norms or the shape of the padding token. Those are ours.

    Args:
        latent_channels: Channels ``C`` of the latents.
        encoder_widths: Channels at each level, from full resolution to latents; one more than the number of strides.
        decoder_widths: Channels of the decoder, in the same order.
        encoder_blocks: Residual blocks at each level of the encoder.
        decoder_blocks: Residual blocks at each level of the decoder.
        strides: (time, space) stride per stage of the encoder.
        patch_size: Side of the pixel patches folded into channels before the first convolution. The paper uses 1; 2
            or 4 skips the full-resolution levels to run on a small machine.
        attention: Use attention within each frame at the latent resolution.
        padding: Replacement for dropped latents. ``'learnable'``: one trained vector ``(C,)`` shared by all positions
            and times (the paper's final model). ``'gaussian'``: standard normal noise.
        gradient_checkpointing: Recompute activations in the backward pass, trading an extra forward pass for memory.
        pixels_at_once: Without gradients, process larger videos in parts of about this many pixels (clips x frames x
            height x width). The result is the same. The video is split by clips, then by frames, then into tiles.
        compile: Compile each block of the encoder and decoder with ``torch.compile`` on first use. Takes minutes;
            meant for a GPU. Results agree up to rounding.
        decode_dtype: ``'bfloat16'`` makes :meth:`decode` compute in bfloat16 when gradients are disabled. It is faster
            on a GPU, and the difference is too small to see. Encoding keeps its precision, because a generator would
            learn the error. None uses the dtype of the weights.
        init_cfg: MMEngine initialization config.

    Example:
        >>> from pvvae_plugin.registry import MODELS
        >>> widths = dict(encoder_widths=(8, 8, 16, 16, 16), decoder_widths=(8, 8, 16, 16, 16))
        >>> vae = MODELS.build(dict(type='PredictiveVAE', latent_channels=4, **widths))
        >>> vae.temporal_ratio, vae.spatial_ratio
        (4, 16)
        >>> latents = vae.encode(torch.zeros(1, 3, 9, 64, 64)).mode()
        >>> latents.shape, vae.decode(latents).shape
        (torch.Size([1, 4, 3, 4, 4]), torch.Size([1, 3, 9, 64, 64]))
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
        arguments = {name: value for name, value in locals().items() if name not in ('self', 'init_cfg', '__class__')}
        if not strides:
            raise ValueError('strides is empty; it needs at least one pair (time, space)')
        for name, value in (
            ('patch_size', patch_size),
            ('latent_channels', latent_channels),
            ('encoder_widths', min(encoder_widths)),
            ('decoder_widths', min(decoder_widths)),
        ):
            if value < 1:
                raise ValueError(f'{name} must be positive, got {value}')
        temporal_ratio = math.prod(time for time, _ in strides)
        spatial_ratio = patch_size * math.prod(space for _, space in strides)
        super().__init__(latent_channels, temporal_ratio, spatial_ratio, init_cfg)
        self.arguments = arguments
        for name, widths in (('encoder_widths', encoder_widths), ('decoder_widths', decoder_widths)):
            if len(widths) != len(strides) + 1:
                raise ValueError(f'{name} needs {len(strides) + 1} numbers for {len(strides)} strides, got {widths}')
        if any(s not in (1, 2) for stride in strides for s in stride):
            raise ValueError(f'strides must be pairs (time, space) of 1 or 2, got {strides}')
        if min(encoder_blocks, decoder_blocks) < 1:
            raise ValueError(
                f'encoder_blocks and decoder_blocks must be positive, got {encoder_blocks}, {decoder_blocks}'
            )
        check_pixels(pixels_at_once)
        if decode_dtype not in (None, 'bfloat16'):
            raise ValueError(f"decode_dtype must be 'bfloat16' or None, got {decode_dtype!r}")
        if (fault := fault_here()) is not None:
            warnings.warn(fault, stacklevel=2)
        self.pixels_at_once = pixels_at_once
        self.decode_dtype = decode_dtype
        self.encoder = Encoder(encoder_widths, encoder_blocks, strides, patch_size, latent_channels, attention)
        self.decoder = Decoder(decoder_widths, decoder_blocks, strides, patch_size, latent_channels, attention)
        self.encoder.gradient_checkpointing = self.decoder.gradient_checkpointing = gradient_checkpointing
        self.temporal_reach = self.decoder.temporal_reach
        self.add_padding(padding)
        self.to(memory_format=torch.channels_last_3d)
        self.encodes_longest = compile  # without it, each new batch size would be compiled
        if compile:
            self.encoder.compile_blocks()
            self.decoder.compile_blocks()

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution. The adaptive GAN weight compares gradients at it."""
        return self.decoder.out.weight

    @property
    def _layout(self) -> Layout:
        check_pixels(self.pixels_at_once)
        return Layout(self.pixels_at_once, self.temporal_ratio, self.spatial_ratio)

    def encode(self, video: Tensor) -> DiagonalGaussian:
        """Return the posterior over the latents ``(N, C, t, h, w)`` of a video ``(N, 3, T, H, W)`` in [-1, 1].

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
            >>> latents = vae.encode(video).mode()
            >>> latents.shape
            torch.Size([1, 4, 3, 2, 2])
            >>> torch.allclose(vae.encode(video[:, :, :5]).mode(), latents[:, :, :2], atol=1e-5)  # causal
            True
        """
        self.check_video(video)
        if torch.is_grad_enabled():
            return self._encode(video, None)
        return _posterior(encode_in_parts(self.encoder, self._layout, self._prepare(video)))

    def _encode(self, video: Tensor, cache: FeatureCache | None) -> DiagonalGaussian:
        return _posterior(self.encoder(self._prepare(video), cache))

    def _prepare(self, video: Tensor) -> Tensor:
        return video.to(self.last_layer.dtype).contiguous(memory_format=torch.channels_last_3d)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode raw latents ``(N, C, t, h, w)`` to a video ``(N, 3, T, H, W)``.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> vae.decode(torch.zeros(1, 4, 3, 2, 2)).shape
            torch.Size([1, 3, 9, 32, 32])
        """
        latents = self._prepare_latents(latents)
        with self._decoding(latents):
            video = (
                self.decoder(latents)
                if torch.is_grad_enabled()
                else decode_in_parts(self.decoder, self._layout, latents)
            )
        return self._decoded(video, latents)

    def _decoding(self, latents: Tensor) -> AbstractContextManager:
        if self.decode_dtype and not torch.is_grad_enabled():
            return torch.autocast(latents.device.type, getattr(torch, self.decode_dtype))
        return nullcontext()

    def _decoded(self, video: Tensor, latents: Tensor) -> Tensor:
        return video.to(latents.dtype) if self.decode_dtype and not torch.is_grad_enabled() else video

    def _prepare_latents(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        latents = latents.to(self.last_layer.dtype)
        return latents.contiguous(memory_format=torch.channels_last_3d)

    def encode_chunk(self, video: Tensor, state: AnyState | None = None) -> tuple[DiagonalGaussian, AnyState]:
        """Encode the next chunk of a long video. The concatenated chunks equal a single pass.

        Args:
            video: Next frames ``(N, 3, T, H, W)`` in [-1, 1]: ``1 + k * p_t`` in the first chunk, ``k * p_t`` after.
            state: State returned for the previous chunk; None for the first.

        Returns:
            Posterior over this chunk's latents, and the state for the next chunk.

        Raises:
            ValueError: If the chunk length is wrong, or the state belongs to another layout or another video.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
            >>> first, state = vae.encode_chunk(video[:, :, :5])
            >>> second, state = vae.encode_chunk(video[:, :, 5:], state)
            >>> chunks = torch.cat([first.mode(), second.mode()], dim=2)
            >>> torch.allclose(chunks, vae.encode(video).mode(), atol=1e-5)
            True
        """
        self._check_chunk(video, is_start=state is None)
        if self._in_tiles(video.shape[3:], state):
            moments, state = encode_tiled(self.encoder, self._layout, self._prepare(video), state)
            return _posterior(moments), state
        cache = FeatureCache(state)
        return self._encode(video, cache), cache.state()

    def decode_chunk(self, latents: Tensor, state: AnyState | None = None) -> tuple[Tensor, AnyState]:
        """Decode the next chunk of a long video. The concatenated chunks equal a single pass.

        Args:
            latents: Next raw latents ``(N, C, t, h, w)``, of any length ``t``.
            state: State returned for the previous chunk; None for the first.

        Returns:
            This chunk's frames (``1 + (t - 1) * p_t`` for the first chunk, ``t * p_t`` after), and the state for the
            next chunk.

        Raises:
            ValueError: If the state belongs to another layout or another video.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> first, state = vae.decode_chunk(torch.zeros(1, 4, 2, 2, 2))
            >>> second, state = vae.decode_chunk(torch.zeros(1, 4, 1, 2, 2), state)
            >>> first.shape[2], second.shape[2]  # frames
            (5, 4)
        """
        latents = self._prepare_latents(latents)
        with self._decoding(latents):
            if self._in_tiles([side * self.spatial_ratio for side in latents.shape[3:]], state):
                video, state = decode_tiled(self.decoder, self._layout, latents, state)
            else:
                cache = FeatureCache(state)
                video, state = self.decoder(latents, cache), cache.state()
        return self._decoded(video, latents), state

    def _in_tiles(self, size: Sequence[int], state: AnyState | None) -> bool:
        tiled = not torch.is_grad_enabled() and self._layout.needs_tiles(size)
        if state is not None and isinstance(state, TiledState) != tiled:
            raise ValueError(
                'tiling must not change between chunks: keep pixels_at_once, the frame size, and the gradient mode '
                'fixed'
            )
        return tiled

    def encode_stream(self, frames: Iterable[Tensor], groups_per_chunk: int = 1) -> Iterator[DiagonalGaussian]:
        """Encode a video of any length from an iterator over its frames, in constant memory.

        Args:
            frames: Iterator over ``1 + k * p_t`` frames ``(N, 3, H, W)`` in [-1, 1].
            groups_per_chunk: Latent frames computed per step.

        Yields:
            Posteriors over ``groups_per_chunk`` latent frames; the last may have fewer.

        Raises:
            ValueError: If the iterator is empty, or the last frames do not fill a group.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> frames = (torch.zeros(1, 3, 32, 32) for _ in range(9))
            >>> [chunk.mean.shape[2] for chunk in vae.encode_stream(frames, groups_per_chunk=2)]  # latent frames
            [2, 1]
        """
        if groups_per_chunk < 1:
            raise ValueError(f'groups_per_chunk must be positive, got {groups_per_chunk}')
        state, waiting, done = None, [], 0
        for frame in frames:
            if waiting and frame.shape != waiting[0].shape:
                raise ValueError(
                    f'all frames need the same shape, got {tuple(waiting[0].shape)} and then {tuple(frame.shape)}'
                )
            waiting.append(frame)
            wanted = groups_per_chunk * self.temporal_ratio - (0 if state else self.temporal_ratio - 1)
            if len(waiting) == wanted:
                posterior, state = self.encode_chunk(torch.stack(waiting, dim=2), state)
                done, waiting = done + len(waiting), []
                yield posterior
        if waiting or not done:
            frames_to_groups(done + len(waiting), self.temporal_ratio)  # raises if the last group is incomplete
            yield self.encode_chunk(torch.stack(waiting, dim=2), state)[0]

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decode a video of any length from an iterator over its latents, in constant memory.

        Args:
            latents: Iterator over raw latents ``(N, C, t, h, w)`` of any length ``t``.

        Yields:
            One video chunk ``(N, 3, T, H, W)`` per item.

        Example:
            >>> from pvvae_plugin.models import PredictiveVAE
            >>> vae = PredictiveVAE(latent_channels=4, encoder_widths=(8,) * 5, decoder_widths=(8,) * 5)
            >>> latents = torch.zeros(1, 4, 3, 2, 2)
            >>> [video.shape[2] for video in vae.decode_stream(latents.split(1, dim=2))]  # frames
            [1, 4, 4]
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
                f'a chunk after the first must be (N, 3, T, H, W) with T a multiple of {self.temporal_ratio}, got '
                f'shape {tuple(video.shape)}'
            )
        self.check_video(video[:, :, :1])


def _posterior(moments: Tensor) -> DiagonalGaussian:
    mean, logvar = moments.chunk(2, dim=1)
    return DiagonalGaussian(mean, logvar.clamp(-30.0, 20.0))

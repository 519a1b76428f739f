"""DiffusersVAE: a causal video VAE from diffusers, wrapped for predictive training."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from pvvae_plugin.files import write_atomically
from pvvae_plugin.missing import Missing
from pvvae_plugin.registry import MODELS
from pvvae_plugin.renaming import renamed_arguments
from pvvae_plugin.temporal import Observed, groups_to_frames

from .diffusers_files import (
    PART,
    find_export,
    find_folder,
    import_diffusers,
    load_weights,
    network_config,
    read_config,
    read_facts,
    weights_sha256,
    without_temporal_tiling,
)
from .posterior import DiagonalGaussian
from .pretrained import read_config as read_export
from .video_vae import PredictiveOutput, Rngs, VideoVAE

EXACT = 1e-4  # upper bound on float32 rounding error, relative to the largest value
LONGEST_REACH = 32  # latent frames; a longer temporal reach is not told from an infinite one


@MODELS.register_module()
class DiffusersVAE(VideoVAE):
    """VAE of Wan 2.1, Wan 2.2, CogVideoX or HunyuanVideo from diffusers.

    Latents are raw, as returned by diffusers' ``encode``; their statistics come from its config. Clips are never tiled
    in time. Two limits are measured when the network is built, and logged. If the network is not causal (norms over
    time), clips that observe different numbers of frames are encoded separately. Clip lengths that decode to a
    different length are rejected.

    Args:
        pretrained: Folder with ``config.json`` and safetensors, or a repository name on the Hugging Face Hub. A folder
            exported from a training of this class also gives its padding token and latent statistics.
        subfolder: Subfolder that holds the VAE, e.g. ``'vae'`` in a full pipeline.
        download: Allow downloads from the Hub. If False, a named repository must already be in the Hub cache.
        padding: Padding for dropped latents, see :meth:`VideoVAE.add_padding`.
        gradient_checkpointing: Recompute activations in the backward pass, if diffusers supports it for this network.
        init_cfg: MMEngine initialization config.

    Attributes:
        vae (nn.Module): The diffusers network.
        source (dict[str, str] | None): ``path`` and ``sha256`` of the weights; None on the meta device, which loads no
            weights.

    Raises:
        FileNotFoundError: If the weights are missing. The message says how to get them.
        ImportError: If diffusers is not installed.
        ValueError: If the folder holds an unsupported network, or weights that do not match its config.

    Example:
        >>> from diffusers import AutoencoderKLWan  # a small random network in place of published weights
        >>> from pvvae_plugin.registry import MODELS
        >>> AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1).save_pretrained('wan')
        >>> vae = MODELS.build(dict(type='DiffusersVAE', pretrained='wan'))
        >>> vae.temporal_ratio, vae.spatial_ratio, vae.latent_channels, vae.is_causal
        (4, 8, 16, True)
        >>> vae.predict(torch.zeros(1, 3, 5, 16, 16), num_frames=9).shape
        torch.Size([1, 3, 9, 16, 16])
    """

    def __init__(
        self,
        pretrained: str,
        subfolder: str | None = None,
        download: bool = False,
        padding: str = 'learnable',
        gradient_checkpointing: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        missing = Missing()
        missing.collect(import_diffusers)
        folder = missing.collect(find_folder, pretrained, subfolder, download)
        missing.report()
        folder, exported = find_export(folder, type(self).__name__)
        network, config = read_config(folder)
        twin, facts = read_facts(network, config, folder)
        super().__init__(facts['channels'], facts['temporal_ratio'], facts['spatial_ratio'], init_cfg)
        # The twin on the meta device tells which lengths survive a round trip. The tuple keeps it unregistered.
        self._twin = (twin,)
        self._lengths: dict[int, bool] = {}
        self._check_ratios()
        on_meta = torch.get_default_device().type == 'meta'
        self.vae = without_temporal_tiling(network.from_config(config)) if on_meta else load_weights(network, folder)
        if gradient_checkpointing:
            if not self.vae._supports_gradient_checkpointing:
                raise ValueError(
                    f'{network.__name__} of diffusers does not support gradient checkpointing: set '
                    'gradient_checkpointing=False'
                )
            self.vae.enable_gradient_checkpointing()
        self.knows_statistics = 'mean' in facts
        if self.knows_statistics:
            self.latent_mean.copy_(facts['mean'])
            self.latent_std.copy_(facts['std'])
        self.arguments = {'padding': padding, 'gradient_checkpointing': gradient_checkpointing}
        self.add_padding(padding)
        if not on_meta:
            self.source = {'path': str(folder), 'sha256': weights_sha256(folder)}
            self._check_causality()
        if exported is not None:
            self._load_export(exported)

    kept_apart = ('vae.',)

    def _save_parts(self, folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
        # diffusers can load this folder too, unless shards of an older export remain in it.
        part = folder / PART
        if self.source and part.resolve() == Path(self.source['path']).resolve():
            raise ValueError(f'{part} holds the weights that this VAE was built from; choose another folder')
        shutil.rmtree(part, ignore_errors=True)
        self.vae.save_pretrained(part)
        write_atomically(part / 'config.json', json.dumps(self._network_config(), indent=2).encode())
        return super()._save_parts(folder)[0], {'vae_sha256': weights_sha256(part)}

    def _network_config(self) -> dict[str, Any]:
        known = (self.latent_mean, self.latent_std) if self.knows_statistics else (None, None)
        return network_config(self.vae, *known)

    def describe(self) -> dict[str, Any]:
        """Return the plain values of :meth:`VideoVAE.describe`, and the config of the network."""
        return {**super().describe(), 'network': self._network_config()}

    @classmethod
    def _without_weights(cls, description: Mapping[str, Any]) -> DiffusersVAE:
        with TemporaryDirectory() as folder, torch.device('meta'):
            write_atomically(Path(folder, PART, 'config.json'), json.dumps(description['network']).encode())
            vae = cls(folder, PART, **description['arguments'])
        return vae.to_empty(device='cpu')

    def _load_export(self, folder: Path) -> None:
        """Load what an exported VAE adds to the network: padding token and latent statistics."""
        config, padding = read_export(folder), self.arguments['padding']
        if padding != (trained := config['arguments'].get('padding', padding)):
            raise ValueError(
                f'padding={padding!r}, but the VAE in {folder} was trained with padding={trained!r}: set '
                f'padding={trained!r}, or copy {folder / PART} to another folder to train with a new padding'
            )
        if self.source and config.get('vae_sha256', self.source['sha256']) != self.source['sha256']:
            raise ValueError(
                f'{folder / PART} is not the network that was exported to {folder}: export it again, or move the '
                'network to another folder'
            )
        self._load_parts(folder, config)

    @classmethod
    def _from_folder(cls, folder: Path, arguments: dict[str, Any]) -> DiffusersVAE:
        return cls(str(folder), PART, **arguments)

    @property
    def last_layer(self) -> Tensor:
        return [p for p in self.vae.decoder.parameters() if p.ndim == 5][-1]

    def freeze_encoder(self) -> None:
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(('vae.decoder.', 'vae.post_quant_conv.')))

    @renamed_arguments(num_observed_groups='observed', generator='rng')
    def forward(self, video: Tensor, observed: Observed = None, rng: Rngs = None) -> PredictiveOutput:
        """Run :meth:`VideoVAE.forward` and give every parameter a gradient.

        If all clips observe a single frame, networks like Wan's skip their temporal layers. Without a gradient for
        those layers, data-parallel processes would deadlock.
        """
        output = super().forward(video, observed, rng)
        if not torch.is_grad_enabled():
            return output
        if self.training:
            self.knows_statistics = False  # an update changes the latents
        nothing = sum(p.flatten()[0] * 0.0 for p in self.parameters() if p.requires_grad)
        return replace(output, reconstruction=output.reconstruction + nothing)

    def check_video(self, video: Tensor) -> int:
        """Run :meth:`VideoVAE.check_video` and reject lengths that the decoder cannot reproduce."""
        num_groups = super().check_video(video)
        self._check_groups(num_groups)
        return num_groups

    def encode(self, video: Tensor) -> DiagonalGaussian:
        super().check_video(video)  # any length can be encoded
        distribution = self.vae.encode(video.to(self.last_layer.dtype)).latent_dist
        return DiagonalGaussian(distribution.mean, distribution.logvar)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode raw latents ``(N, C, t, h, w)`` to a video ``(N, 3, T, H, W)``. diffusers clamps Wan's to [-1, 1].

        Raises:
            ValueError: If the network decodes this many latents to an unexpected number of frames.
        """
        self.check_latents(latents)
        self._check_groups(latents.shape[2])
        return self.vae.decode(latents.to(self.last_layer.dtype)).sample

    @cached_property
    def temporal_reach(self) -> float:
        """Number of past latent frames that the decoder sees, measured at first use; infinite from 32 on.

        A NaN in the first latent frame reaches every frame that depends on it, whatever the weights are.
        """
        if self.last_layer.is_meta:
            return math.inf
        num_groups = 1 + LONGEST_REACH
        latents = torch.zeros(1, self.latent_channels, num_groups, 1, 1).to(self.last_layer)
        latents[:, :, 0] = math.nan
        with torch.no_grad():
            video = self.vae.decode(latents).sample
        last_frames = video[0, :, :: self.temporal_ratio]  # (3, groups, h, w): the last frame of each group
        reach = int(last_frames.isnan().any(dim=-1).any(dim=-1).any(dim=0).nonzero()[-1])
        return reach if reach < LONGEST_REACH else math.inf

    def _check_groups(self, num_groups: int) -> None:
        if self._comes_back(num_groups):
            return
        near = [n for n in range(max(1, num_groups - 4), num_groups + 5) if self._comes_back(n)]
        lengths = ' or '.join(str(groups_to_frames(n, self.temporal_ratio)) for n in near) or 'another number of'
        raise ValueError(
            f'{type(self.vae).__name__} of diffusers does not decode {num_groups} latent frames to '
            f'{groups_to_frames(num_groups, self.temporal_ratio)} frames: use clips of {lengths} frames'
        )

    def _comes_back(self, num_groups: int) -> bool:
        """Return True if the network decodes this many groups to the expected number of frames."""
        if num_groups not in self._lengths:
            latents = torch.empty(1, self.latent_channels, num_groups, 2, 2, device='meta')
            with torch.no_grad():
                made = self._twin[0].decode(latents).sample.shape[2]
            self._lengths[num_groups] = made == groups_to_frames(num_groups, self.temporal_ratio)
        return self._lengths[num_groups]

    def _check_ratios(self) -> None:
        """Check the compression ratios and channels in the config against the network."""
        frames, side = 1 + 2 * self.temporal_ratio, 4 * self.spatial_ratio
        with torch.no_grad():
            mean = self._twin[0].encode(torch.empty(1, 3, frames, side, side, device='meta')).latent_dist.mean
        wanted, found = (self.latent_channels, 3, 4, 4), tuple(mean.shape[1:])
        if found != wanted:
            raise ValueError(
                f'the config of this {type(self._twin[0]).__name__} implies latents {wanted} for a clip (3, {frames}, '
                f'{side}, {side}), but they are {found}: correct the scale factors or compression ratios in config.json'
            )

    def _check_causality(self) -> None:
        """Measure on noise whether the network is causal, and log the consequences."""
        frames, prefix, side = 1 + 2 * self.temporal_ratio, 1 + self.temporal_ratio, 2 * self.spatial_ratio
        video = torch.rand(1, 3, frames, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            whole = self.encode(video).mean[:, :, :2]
            error = (self.encode(video[:, :, :prefix]).mean - whole).abs().max() / whole.abs().max()
        self.is_causal = bool(error < EXACT)
        name = type(self.vae).__name__
        if not self.is_causal:
            print_log(
                f'{name} is not causal: the latents of {prefix} frames change by {100 * error:.2g} % if more frames '
                'follow. Clips with different numbers of observed frames are encoded separately',
                'current',
            )
        refused = [groups_to_frames(n, self.temporal_ratio) for n in range(1, 7) if not self._comes_back(n)]
        if refused:
            print_log(f'{name}: clips of {refused} frames decode to another length and are rejected', 'current')

"""What a run will cost, found without running it: the network is traced on the meta device, which has no data."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from mmengine.registry import DefaultScope
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pvvae_plugin.registry import MODELS


@dataclass(frozen=True)
class BackboneCost:
    """Cost of a VAE for one clip.

    Attributes:
        parameters: Number of parameters.
        encode_flops: Floating-point operations (2 for each multiply-add, attention included) of encoding.
        decode_flops: The same for decoding.
        encode_activation_bytes: What autograd keeps of encoding for the backward pass, in float32.
        decode_activation_bytes: The same for decoding.
    """

    parameters: int
    encode_flops: int
    decode_flops: int
    encode_activation_bytes: int
    decode_activation_bytes: int


def backbone_cost(backbone: dict, num_frames: int, height: int, width: int) -> BackboneCost:
    """Trace encode + decode of one clip ``(1, 3, T, H, W)``.

    Args:
        backbone: Config of a VAE.
        num_frames: ``T``.
        height: ``H``.
        width: ``W``.
    """
    with DefaultScope.overwrite_default_scope('pvvae_plugin'), torch.device('meta'):
        vae = MODELS.build(dict(backbone))
        video = torch.empty(1, 3, num_frames, height, width)
    parameters = {p.untyped_storage()._cdata for p in vae.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with FlopCounterMode(display=False) as encode:
            latents = vae.encode(video).mode()
        encode_bytes = sum(kept.values())
        with FlopCounterMode(display=False) as decode:
            reconstruction = vae.decode(latents)
    del reconstruction  # alive until here, so that no two kept tensors could share an address
    return BackboneCost(
        parameters=sum(p.numel() for p in vae.parameters()),
        encode_flops=encode.get_total_flops(),
        decode_flops=decode.get_total_flops(),
        encode_activation_bytes=encode_bytes,
        decode_activation_bytes=sum(kept.values()) - encode_bytes,
    )


def convolution_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP a second that this device reaches in a plain 3x3x3 convolution, measured for about ``seconds``."""
    channels, size = (256, 32) if device.type == 'cuda' else (32, 32)
    conv = torch.nn.Conv3d(channels, channels, 3, padding=1, device=device, dtype=dtype)
    conv = conv.to(memory_format=torch.channels_last_3d)
    # Two clips: of a single one some CPU builds make a case of its own, several times slower.
    x = torch.randn(2, channels, 8, size, size, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    flops = 2 * 27 * channels**2 * x[:, 0].numel()
    wait = torch.cuda.synchronize if device.type == 'cuda' else (lambda: None)
    with torch.no_grad():
        for _ in range(3):
            conv(x)
        wait()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            conv(x)
            wait()
            count += 1
        return count * flops / (time.perf_counter() - start)

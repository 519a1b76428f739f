"""LPIPS perceptual distance from the package ``lpips`` and a local backbone file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pvvae_plugin.registry import MODELS
from pvvae_plugin.safe_globals import load_safely

# net: (builder in torchvision, file name in torch's cache, smallest side that its pooling supports)
BACKBONES = {
    'vgg': ('vgg16', 'vgg16-397923af.pth', 16),
    'alex': ('alexnet', 'alexnet-owt-7be5be79.pth', 31),
}
# Pixels per forward pass of the backbone: 16 frames of 256 x 256. Bounds the memory without gradients.
CHUNK_PIXELS = 16 * 256 * 256


@MODELS.register_module()
class LPIPS(nn.Module):
    """Learned perceptual image patch similarity per frame.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018; version 0.1 with its
    calibrated linear weights.

    Nothing is downloaded. The linear weights ship with the package ``lpips``; the ImageNet backbone is read from
    ``weights`` or from torch's cache. Report the backbone with every number: results of different backbones are not
    comparable.

    The network is fixed: always in evaluation mode, in float32, on the device of its input. It has no trainable
    parameters and is not part of the ``state_dict``, so checkpoints stay small and load without it.

    Args:
        net: ``'vgg'`` (common as a loss) or ``'alex'`` (common as a metric, recommended by the authors).
        weights: torchvision state dict of the backbone. If None, it is read from torch's cache,
            ``torch.hub.get_dir()/checkpoints``.

    Raises:
        ImportError: If ``lpips`` or ``torchvision`` is not installed.
        FileNotFoundError: If the weights of the backbone are not found.
        ValueError: If ``net`` is unknown or the file belongs to another network.

    Example:
        >>> # Requires pip install "pvvae_plugin[lpips]" and the ImageNet weights of VGG16.
        >>> from pvvae_plugin.registry import MODELS
        >>> lpips = MODELS.build(dict(type='LPIPS', net='vgg'))  # doctest: +SKIP
        >>> video = torch.zeros(1, 3, 5, 64, 64)
        >>> lpips(video, video)  # doctest: +SKIP
        tensor([[0., 0., 0., 0., 0.]])
    """

    def __init__(self, net: str = 'vgg', weights: str | Path | None = None) -> None:
        super().__init__()
        if net not in BACKBONES:
            raise ValueError(f'net must be one of {sorted(BACKBONES)}, got {net!r}')
        self.net = net
        path = _find_weights(net, weights)
        network = _build_network(net)
        _load_backbone(network.net, path)
        # The list hides it from torch. A registered child would enter state dicts, optimizers and DDP buckets, follow
        # .half(), and be switched to training mode.
        self._network = [network.eval().requires_grad_(False).float()]

    def check_clip(self, shape: Sequence[int]) -> None:
        """Check that the backbone accepts clips of shape ``(3, T, H, W)``.

        Raises:
            ValueError: If the frames are too small for its pooling.
        """
        height, width = shape[-2:]
        smallest = BACKBONES[self.net][2]
        if min(height, width) < smallest:
            raise ValueError(
                f"LPIPS with net='{self.net}' needs frames of at least {smallest} x {smallest} pixels, got {height} x "
                f'{width}; use larger frames, or do without LPIPS: in the loss set lpips=None and lpips_weight=0, in '
                'VideoReconstruction set lpips=None'
            )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distance per frame. Gradients flow to both arguments.

        Args:
            a: Video ``(N, 3, T, H, W)`` in [-1, 1].
            b: Video of the same shape.

        Returns:
            ``(N, T)``, float32.

        Raises:
            ValueError: If the shapes differ or the frames are too small for the backbone.
        """
        if a.shape != b.shape or a.dim() != 5 or a.shape[1] != 3:
            raise ValueError(
                f'LPIPS needs two videos with the same shape (N, 3, T, H, W), got {tuple(a.shape)} and {tuple(b.shape)}'
            )
        n, _, t, h, w = a.shape
        self.check_clip(a.shape[1:])
        network = self._network[0].to(a.device)
        frames = [video.float().transpose(1, 2).flatten(0, 1) for video in (a, b)]  # (N * T, 3, H, W)
        step = max(1, CHUNK_PIXELS // (h * w))
        with torch.autocast(a.device.type, enabled=False):
            distances = [network(x, y).flatten() for x, y in zip(*(f.split(step) for f in frames), strict=True)]
        return torch.cat(distances).view(n, t)


def _find_weights(net: str, weights: str | Path | None) -> Path:
    builder, file_name, _ = BACKBONES[net]
    cached = Path(torch.hub.get_dir()) / 'checkpoints' / file_name
    path = cached if weights is None else Path(weights).expanduser()
    if path.is_file():
        return path
    given = "'weights' is not set" if weights is None else f"no file at weights='{weights}'"
    in_cache = 'exists' if cached.is_file() else 'does not exist'
    raise FileNotFoundError(
        f"LPIPS with net='{net}' needs torchvision's weights of {builder}, {file_name}: {given}, and the cached file "
        f'{cached} {in_cache}. Nothing is downloaded during a run. On a machine with internet access, download the '
        'file into the cache with\n'
        f"""  python -c "import torchvision; torchvision.models.{builder}(weights='IMAGENET1K_V1')"\n"""
        f"and leave 'weights' unset, or pass weights='/path/to/{file_name}'. To do without LPIPS, remove the setting "
        '`lpips` of the loss (and set lpips_weight=0) or of the metric VideoReconstruction from the config.'
    )


def _build_network(net: str) -> nn.Module:
    """Build the network of ``lpips`` with its linear weights and a random backbone."""
    try:
        import lpips
    except ImportError as error:
        raise ImportError(
            f'LPIPS needs the packages lpips and torchvision ({error}): pip install "pvvae_plugin[lpips]"'
        ) from error
    # The random weights are replaced later; drawing them must not change the global RNG state.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings('ignore', category=UserWarning, module='torchvision')  # `pretrained` is deprecated
        return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


def _load_backbone(backbone: nn.Module, path: Path) -> None:
    """Load torchvision's state dict into lpips' slices: ``features.5.weight`` goes to ``slice2.5.weight``."""
    source = load_safely(path)
    if not isinstance(source, dict):
        raise ValueError(f"{path} is not torchvision's state dict of this backbone: it is a {type(source).__name__}")
    renamed = {key: 'features.' + key.split('.', 1)[1] for key in backbone.state_dict()}
    absent = sorted(set(renamed.values()) - set(source))
    if absent:
        raise ValueError(
            f"{path} is not torchvision's state dict of this backbone: it lacks {', '.join(absent[:3])}"
            f'{" and others" if len(absent) > 3 else ""}'
        )
    try:
        backbone.load_state_dict({key: source[name] for key, name in renamed.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} is not torchvision's state dict of this backbone: {error}") from error

"""Small video classifier, trained in minutes on labeled clips and used to evaluate other clips (ours)."""

from __future__ import annotations

import io
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin.datasets import InfiniteClipSampler
from pvvae_plugin.datasets.checking.stuck_workers import limit_reading, naming_files
from pvvae_plugin.datasets.latent_shards import config_sha256
from pvvae_plugin.files import write_atomically
from pvvae_plugin.functional.keyed_random import derive_key, numpy_rng, torch_rng
from pvvae_plugin.models.checkpoints import check_checkpoint, unwrap_names
from pvvae_plugin.progress import ProgressBar
from pvvae_plugin.safe_globals import load_safely

WIDTHS = (16, 32, 48, 64)  # channels of the four levels
LEARNING_RATE = 4e-3
BATCH_SIZE = 32
SIDE = 16  # minimum side of shrunk frames, in pixels
NEW_RECONSTRUCTIONS = 4  # per step; the rest of the half batch comes from earlier steps
POOL_SIZE = 2048  # reconstructions kept
# Maximum degradation of training clips, as standard deviations.
MAX_BLUR = 0.03  # as a fraction of the frame side
MAX_NOISE = 0.05  # for values in [-1, 1]


class MotionClassifier(nn.Module):
    """3D convolutional classifier of motion with 0.14 M parameters.

    The inputs are the frames, the frames minus their temporal mean, and frame differences. The last two contain no
    static background and are divided by the clip's contrast, so a motion looks the same on any background. Frames
    are first shrunk to a short side of 16 to 31 pixels: VAEs do not reconstruct finer details, and motion does not
    need them.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        strides = ((1, 2, 2), (1, 1, 1), (2, 2, 2), (2, 1, 1))
        kernels = ((1, 5, 5), (3, 3, 3), (3, 3, 3), (3, 3, 3))
        for before, width, stride, kernel in zip((9, *WIDTHS[:-1]), WIDTHS, strides, kernels, strict=True):
            padding = tuple(k // 2 for k in kernel)
            layers += [nn.Conv3d(before, width, kernel, stride, padding, bias=False), nn.BatchNorm3d(width), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.logits = nn.Linear(2 * WIDTHS[-1], num_classes)

    def forward(self, video: Tensor) -> Tensor:
        """Return logits ``(N, num_classes)`` of clips ``(N, 3, T, H, W)`` in [-1, 1] or uint8."""
        return self.logits(self.embed(video))

    def embed(self, video: Tensor) -> Tensor:
        """Return the input of the last layer, ``(N, 128)``."""
        if video.dtype == torch.uint8:
            video = video.float().div(127.5).sub(1)
        video = shrink(video)
        moving = video - video.mean(dim=2, keepdim=True)
        contrast = moving.flatten(1).std(dim=1)[:, None, None, None, None] + 0.02
        change = F.pad(video.diff(dim=2), (0, 0, 0, 0, 1, 0))
        x = torch.cat([video, moving / contrast, change / contrast], dim=1)  # (N, 9, T, H, W)
        x = self.features(x)  # (N, C, T / 4, H / 4, W / 4), rounded up
        return torch.cat([x.mean(dim=(2, 3, 4)), x.amax(dim=(2, 3, 4))], dim=1)


def shrink(video: Tensor) -> Tensor:
    """Average-pool frames ``(N, 3, T, H, W)`` to a short side of 16 to 31 pixels; smaller frames stay as they are."""
    factor = min(video.shape[3:]) // SIDE
    return F.avg_pool3d(video, (1, factor, factor)) if factor > 1 else video


def degrade(video: Tensor, rng: torch.Generator) -> Tensor:
    """Add a random amount of blur and noise to each clip, to make the classifier insensitive to sharpness.

    Args:
        video: ``(N, 3, T, H, W)`` in [-1, 1].
        rng: Random generator on the CPU.
    """
    amounts = torch.rand(2, len(video), 1, 1, 1, 1, generator=rng).to(video.device)
    noise = torch.randn(video.shape, generator=rng).to(video.device)
    rows, columns = (gaussian_rows(side, MAX_BLUR * side * amounts[0]) for side in video.shape[3:])
    return rows @ video @ columns.mT + MAX_NOISE * amounts[1] * noise


def gaussian_rows(size: int, sigma: Tensor) -> Tensor:
    """Return blur matrices ``(..., size, size)`` for ``sigma`` ``(..., 1, 1)`` in entries; each row sums to 1."""
    place = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    distance = (place[:, None] - place) / sigma.clamp(min=0.1)
    return torch.softmax(-distance.square() / 2, dim=-1)


class ReconstructionMixer:
    """Mixer that replaces half a batch with reconstructions, drawn from a pool of this and earlier batches.

    Args:
        reconstruct: Function that passes clips through a VAE, ``(N, 3, T, H, W) -> (N, 3, T, H, W)``.
    """

    def __init__(self, reconstruct: Callable[[Tensor], Tensor]) -> None:
        self.reconstruct = reconstruct
        self.pool: deque[tuple[Tensor, int]] = deque(maxlen=POOL_SIZE)

    def __call__(self, video: Tensor, labels: list[int], rng: np.random.Generator) -> tuple[Tensor, list[int]]:
        """Return as many mixed, shrunk clips as in ``video`` ``(N, 3, T, H, W)``, with their labels."""
        made = shrink(self.reconstruct(video[:NEW_RECONSTRUCTIONS]))
        self.pool.extend(zip(made.half(), labels, strict=False))
        half = len(video) // 2
        drawn = [self.pool[i] for i in rng.integers(len(self.pool), size=half)]
        clips = torch.stack([clip for clip, _ in drawn]).float()
        return torch.cat([shrink(video[half:]), clips]), labels[half:] + [label for _, label in drawn]


def train_classifier(
    dataset: Dataset,
    num_classes: int,
    steps: int,
    seed: int,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
    device: torch.device | str = 'cpu',
    num_workers: int = 1,
) -> MotionClassifier:
    """Train a classifier. On a CPU, the result is reproducible for the same number of threads.

    Args:
        dataset: Labeled clips, packed by :class:`PackClip`.
        num_classes: Number of classes.
        steps: Number of optimizer steps, with 32 clips each.
        seed: Seed of the weights, the order of clips, and the augmentation.
        reconstruct: Function that passes clips through a VAE, ``(N, 3, T, H, W) -> (N, 3, T, H, W)``. If given, half of
            each batch are reconstructions, which makes the classifier robust to the VAE's artifacts.
        device: Training device.
        num_workers: Number of worker processes that load clips.

    Raises:
        ValueError: If a clip has no label or one out of range.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_key(seed, 'classifier', 'weights'))
        model = MotionClassifier(num_classes).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    sampler = InfiniteClipSampler(dataset, derive_key(seed, 'clips'))
    batches = iterate_batches(dataset, sampler, BATCH_SIZE, num_workers)
    mixer = None if reconstruct is None else ReconstructionMixer(reconstruct)
    bar = ProgressBar(steps, file=sys.stderr)
    for step in range(steps):
        video, labels = next(batches)
        check_labels(labels, num_classes)
        video = video.to(device)
        video, labels = mixer(video, labels, numpy_rng(seed, 'mix', step)) if mixer else (shrink(video), labels)
        rng = torch_rng(seed, 'degrade', step)
        warm_up = min(1.0, (step + 1) / (0.05 * steps))
        optimizer.param_groups[0]['lr'] = LEARNING_RATE * warm_up * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        loss = F.cross_entropy(model(degrade(video, rng)), torch.tensor(labels, device=device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.update()
    print(file=sys.stderr)
    return model.eval()


def iterate_batches(
    dataset: Dataset, sampler: Any, batch_size: int, num_workers: int
) -> Iterator[tuple[Tensor, list[int | None]]]:
    """Yield batches of clips, float ``(N, 3, T, H, W)`` in [-1, 1], with their labels."""
    loader = DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
        generator=torch.Generator(),  # without it, the loader draws its base seed from the global rng
    )
    with naming_files():
        for batch in limit_reading(loader):
            video = torch.stack(batch['inputs']).float().div_(127.5).sub_(1.0)
            yield video, [sample.metainfo.get('label') for sample in batch['data_samples']]


def check_labels(labels: Sequence[int | None], num_classes: int) -> None:
    """Check that every label is present and in range.

    Raises:
        ValueError: If a label is missing or out of range.
    """
    wrong = [label for label in labels if label is None or not 0 <= label < num_classes]
    if wrong:
        raise ValueError(f'every clip needs a label in 0..{num_classes - 1}, got {wrong[0]}; use a labeled dataset')


def classifier_digest(
    dataset_config: dict,
    num_classes: int,
    steps: int,
    seed: int,
    vae_sha256: str | None = None,
    files: str | None = None,
) -> str:
    """Return a digest of everything that determines the weights.

    Args:
        dataset_config: Config of the training clips.
        num_classes: See :func:`train_classifier`.
        steps: See :func:`train_classifier`.
        seed: See :func:`train_classifier`.
        vae_sha256: Digest of the weights of ``reconstruct``'s VAE.
        files: Digest of the training files; None for procedural clips.
    """
    facts = {
        'data': dataset_config,
        'network': repr(MotionClassifier(num_classes)),
        'recipe': [BATCH_SIZE, SIDE, LEARNING_RATE, NEW_RECONSTRUCTIONS, POOL_SIZE, MAX_BLUR, MAX_NOISE],
        'steps': steps,
        'seed': seed,
        'vae': vae_sha256,
    }
    return config_sha256(facts if files is None else {**facts, 'files': files})


def save_classifier(model: MotionClassifier, path: Path, digest: str) -> None:
    """Write the weights and their digest to a file atomically."""
    content = io.BytesIO()
    torch.save({'digest': digest, 'state_dict': model.state_dict()}, content)
    write_atomically(path, content.getvalue())


def load_classifier(path: Path, digest: str | None = None) -> MotionClassifier:
    """Load a classifier.

    Args:
        path: File written by :func:`save_classifier`.
        digest: Required digest, see :func:`classifier_digest`; None accepts any.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged, not a classifier, or has a different digest: it was trained with another
            dataset, VAE, number of steps or seed.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f'classifier {path} does not exist; train one with tools/analysis/train_classifier.py CONFIG --out FILE'
        )
    check_checkpoint(str(path))
    record = load_safely(path)
    if digest is not None and record.get('digest') != digest:
        raise ValueError(
            f'{path} is a classifier trained with another dataset, VAE, number of steps or seed, or the videos changed '
            'since; choose another file, or delete it to train again'
        )
    state, expected = record['state_dict'], MotionClassifier(1).state_dict()
    state = unwrap_names(state, expected) if isinstance(state, dict) else {}
    if state.keys() != expected.keys():
        raise ValueError(
            f'{path} is not a classifier; train one with tools/analysis/train_classifier.py CONFIG --out FILE'
        )
    model = MotionClassifier(len(state['logits.weight']))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f'{path} was written by another version of the classifier; train it again') from error
    return model.eval()

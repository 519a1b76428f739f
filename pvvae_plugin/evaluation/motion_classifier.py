"""A small video classifier, trained in minutes on the labelled clips at hand, to judge other clips by (ours)."""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.utils import ProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pvvae_plugin.datasets import InfiniteClipSampler
from pvvae_plugin.datasets.latent_shards import config_sha256
from pvvae_plugin.functional.keyed_random import derive_key, numpy_rng, torch_rng
from pvvae_plugin.models.checkpoints import check_checkpoint
from pvvae_plugin.safe_globals import load_safely

WIDTHS = (16, 32, 48, 64)  # channels of the four levels
LEARNING_RATE = 4e-3
BATCH_SIZE = 32
SIDE = 16  # pixels, or a little more
NEW_RECONSTRUCTIONS = 4  # a step; the rest of its half batch comes from those of earlier steps
POOL_SIZE = 2048  # reconstructions kept
# How far training clips are degraded at most, as standard deviations.
MAX_BLUR = 0.03  # in frame sides
MAX_NOISE = 0.05  # of a range of 2


class MotionClassifier(nn.Module):
    """3D convolutions over frames, what moves in them and their differences; 0.14 M parameters.

    What stands still is taken out of two of its three inputs, and these are scaled to the clip's own contrast: a
    motion is then the same motion on any background. Large frames are shrunk to a side of 16 to 31 pixels first: what
    is smaller than that does not come back from a VAE, and motion is seen without it.

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
        """Logits ``(N, num_classes)`` of clips ``(N, 3, T, H, W)``, in [-1, 1] or uint8."""
        return self.logits(self.embed(video))

    def embed(self, video: Tensor) -> Tensor:
        """What the last layer sees: ``(N, 128)``."""
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
    """Frames ``(N, 3, T, H, W)`` averaged over squares, so that their short side has 16 to 31 pixels or fewer."""
    factor = min(video.shape[3:]) // SIDE
    return F.avg_pool3d(video, (1, factor, factor)) if factor > 1 else video


def degrade(video: Tensor, rng: torch.Generator) -> Tensor:
    """Some blur and noise, as much of each as is drawn for a clip, so that sharpness matters little.

    Args:
        video: ``(N, 3, T, H, W)`` in [-1, 1].
        rng: On the CPU.
    """
    amounts = torch.rand(2, len(video), 1, 1, 1, 1, generator=rng).to(video.device)
    noise = torch.randn(video.shape, generator=rng).to(video.device)
    rows, columns = (gaussian_rows(side, MAX_BLUR * side * amounts[0]) for side in video.shape[3:])
    return rows @ video @ columns.mT + MAX_NOISE * amounts[1] * noise


def gaussian_rows(size: int, sigma: Tensor) -> Tensor:
    """Matrices ``(..., size, size)`` that blur by ``sigma`` entries, ``(..., 1, 1)``; each row sums to 1."""
    place = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    distance = (place[:, None] - place) / sigma.clamp(min=0.1)
    return torch.softmax(-distance.square() / 2, dim=-1)


class ReconstructionMixer:
    """Makes half of each batch reconstructions: a few of its own clips, the others from earlier batches.

    Args:
        reconstruct: A VAE's ``(N, 3, T, H, W) -> (N, 3, T, H, W)``.
    """

    def __init__(self, reconstruct: Callable[[Tensor], Tensor]) -> None:
        self.reconstruct = reconstruct
        self.pool: deque[tuple[Tensor, int]] = deque(maxlen=POOL_SIZE)

    def __call__(self, video: Tensor, labels: list[int], rng: np.random.Generator) -> tuple[Tensor, list[int]]:
        """Mixed clips, shrunk, and their labels; as many as in ``video`` ``(N, 3, T, H, W)``."""
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
    """Train a classifier; the same every time on a CPU with the same number of threads.

    Args:
        dataset: Labelled clips, packed by :class:`PackClip`.
        num_classes: Number of classes.
        steps: Optimiser steps, of 32 clips each.
        seed: Seed of the weights, the order of clips and what is done to them.
        reconstruct: A VAE's ``(N, 3, T, H, W) -> (N, 3, T, H, W)``. Half of each batch are then reconstructions, so
            that a motion is still recognised behind all that this VAE does to clips.
        device: Where to train.
        num_workers: Processes that draw or read clips.

    Raises:
        ValueError: If a clip has no label, or one out of range.
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
    """Batches of clips, float ``(N, 3, T, H, W)`` in [-1, 1], with their labels."""
    loader = DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
        generator=torch.Generator(),  # else the loader draws its workers' seed from the global state
    )
    for batch in loader:
        video = torch.stack(batch['inputs']).float().div_(127.5).sub_(1.0)
        yield video, [sample.metainfo.get('label') for sample in batch['data_samples']]


def check_labels(labels: Sequence[int | None], num_classes: int) -> None:
    """Refuse labels that are missing or unknown.

    Raises:
        ValueError: If there is one.
    """
    wrong = [label for label in labels if label is None or not 0 <= label < num_classes]
    if wrong:
        raise ValueError(f'every clip needs a label in 0..{num_classes - 1}, got {wrong[0]}: use labelled data')


def classifier_digest(
    dataset_config: dict, num_classes: int, steps: int, seed: int, vae_sha256: str | None = None
) -> str:
    """Digest of all that a classifier's weights follow from; ``vae_sha256`` is that of the reconstructing VAE."""
    facts = {
        'data': dataset_config,
        'network': repr(MotionClassifier(num_classes)),
        'recipe': [BATCH_SIZE, SIDE, LEARNING_RATE, NEW_RECONSTRUCTIONS, POOL_SIZE, MAX_BLUR, MAX_NOISE],
        'steps': steps,
        'seed': seed,
        'vae': vae_sha256,
    }
    return config_sha256(facts)


def save_classifier(model: MotionClassifier, path: Path, digest: str) -> None:
    """Write the weights with what they follow from; a file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    torch.save({'digest': digest, 'state_dict': model.state_dict()}, part)
    os.replace(part, path)


def load_classifier(path: Path, digest: str | None = None) -> MotionClassifier:
    """Read a classifier.

    Args:
        path: File written by :func:`save_classifier`.
        digest: What it must follow from, see :func:`classifier_digest`; None takes one of any data.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds something else, or another's: other data, another VAE, number of steps or
            seed.
    """
    if not path.is_file():
        raise FileNotFoundError(f'no classifier {path}: tools/analysis/train_classifier.py CONFIG --out FILE makes one')
    check_checkpoint(str(path))
    record = load_safely(path)
    if digest is not None and record.get('digest') != digest:
        raise ValueError(
            f'{path} holds no classifier of this data set, VAE, number of steps and seed: name another file, or '
            'delete it to train anew'
        )
    state, expected = record['state_dict'], MotionClassifier(1).state_dict()
    if not isinstance(state, dict) or state.keys() != expected.keys():
        raise ValueError(f'{path} holds no classifier: tools/analysis/train_classifier.py CONFIG --out FILE makes one')
    model = MotionClassifier(len(state['logits.weight']))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f'{path} holds a classifier of another version: make it anew') from error
    return model.eval()

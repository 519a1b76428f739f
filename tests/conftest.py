"""Shared fixtures. Tests run on one thread where they compare numbers, so that sums come in one order."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

import pvvae_plugin  # noqa: F401


@pytest.fixture(autouse=True)
def plain_scope():
    """Every test starts under our default scope, with no history of another run."""
    MessageHub._instance_dict.clear()
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('pvvae_plugin'):
        yield


@pytest.fixture
def tiny_vae_config() -> dict:
    """The paper's stage layout at toy widths: p_t = 4, p_s = 16."""
    return {
        'type': 'PredictiveVAE',
        'latent_channels': 4,
        'encoder_widths': (8, 8, 8, 8, 16),
        'decoder_widths': (8, 8, 8, 8, 16),
        'encoder_blocks': 1,
        'decoder_blocks': 1,
    }


@pytest.fixture
def write_video():
    """Writes a small video whose frames differ strongly; returns its path."""

    def write(path, num_frames=20, fourcc='mp4v', size=(64, 48)):
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), 25, size)
        for t in range(num_frames):
            frame = np.zeros((height, width, 3), np.uint8)
            frame[:, : 2 + 3 * t % width] = (20, 10 * t % 250, 230)  # BGR: mostly red
            writer.write(frame)
        writer.release()
        return str(path)

    return write

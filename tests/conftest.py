"""Shared fixtures. Tests run on one thread where they compare numbers, so that sums come in one order."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch


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


@pytest.fixture(scope='session')
def diffusers_folders(tmp_path_factory) -> dict[str, str]:
    """Small random VAEs as diffusers saves them: name -> folder."""
    diffusers = pytest.importorskip('diffusers')
    torch.manual_seed(0)
    wan = {'base_dim': 8, 'dim_mult': [1, 1, 1, 1], 'num_res_blocks': 1}
    wan22 = {
        'z_dim': 48,
        'temperal_downsample': [False, True, True],
        'is_residual': True,
        'in_channels': 12,
        'out_channels': 12,
        'patch_size': 2,
        'scale_factor_spatial': 16,
        'latents_mean': [0.1] * 48,
        'latents_std': [2.0] * 48,
    }
    others = {'block_out_channels': (8, 8, 8, 8), 'latent_channels': 4, 'layers_per_block': 1, 'norm_num_groups': 2}
    networks = {
        'wan21': diffusers.AutoencoderKLWan(**wan),
        'wan22': diffusers.AutoencoderKLWan(**wan, **wan22),
        'cogvideox': diffusers.AutoencoderKLCogVideoX(**others),
        'hunyuan': diffusers.AutoencoderKLHunyuanVideo(**others),
    }
    folder = tmp_path_factory.mktemp('diffusers')
    for name, network in networks.items():
        network.save_pretrained(folder / name / 'vae')
    return {name: str(folder / name) for name in networks}

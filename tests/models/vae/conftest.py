from __future__ import annotations

import pytest
import torch


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

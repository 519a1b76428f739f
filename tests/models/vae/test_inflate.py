"""An inflated VAE processes each frame as the image VAE processes an image."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from pvvae_plugin import config_path
from pvvae_plugin.cli import inflate
from pvvae_plugin.models import VideoVAE
from pvvae_plugin.models.vae.inflate import inflate_
from pvvae_plugin.registry import MODELS


def stirred(config):
    vae = MODELS.build(config).double().eval()
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return vae


def image_state(vae):
    """Extract the 2D network of a video VAE: the weights that a still image uses."""
    state = {name: p[:, :, -1] if p.ndim == 5 else p for name, p in vae.state_dict().items()}
    return {name: p for name, p in state.items() if 'time_conv' not in name and name != 'padding_token'}


@torch.no_grad()
def test_each_frame_is_treated_as_an_image(tiny_vae_config):
    # An image VAE has no time_conv.
    image_vae = stirred({**tiny_vae_config, 'strides': ((1, 2), (1, 2), (1, 2), (1, 2))})
    vae = stirred(tiny_vae_config)
    inflate_(vae, image_state(image_vae))
    video = torch.rand(2, 3, 9, 32, 32, dtype=torch.float64) * 2 - 1
    latents = vae.encode(video).mean
    for group in range(3):
        alone = image_vae.encode(video[:, :, 4 * group : 4 * group + 1]).mean
        torch.testing.assert_close(latents[:, :, group : group + 1], alone, rtol=1e-10, atol=1e-10)
    decoded = vae.decode(latents)
    for frame in range(9):
        group = (frame + 3) // 4
        alone = image_vae.decode(latents[:, :, group : group + 1])
        torch.testing.assert_close(decoded[:, :, frame : frame + 1], alone, rtol=1e-10, atol=1e-10)


def test_what_is_of_another_layout_is_refused_and_nothing_changed(tiny_vae_config):
    state = image_state(stirred({**tiny_vae_config, 'strides': ((1, 2), (1, 2), (1, 2), (1, 2))}))
    vae = stirred(tiny_vae_config)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    state['encoder.more.weight'] = state.pop('decoder.out.weight')
    state['encoder.out.weight'] = torch.zeros(3, 3, 3, 3)
    with pytest.raises(ValueError, match=r'1 weights missing \(decoder.out.weight\), 1 of another shape .*1 unknown'):
        inflate_(vae, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vae.state_dict().items())


def test_by_one_command(tiny_vae_config, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = {config_path("pvvae_demo.py")!r}\nmodel = dict(backbone={ {**tiny_vae_config, "_delete_": True} })\n'
    )
    images = stirred({**tiny_vae_config, 'strides': ((1, 2), (1, 2), (1, 2), (1, 2))})
    state = {name.replace('encoder.', 'enc.'): p.float().contiguous() for name, p in image_state(images).items()}
    state = {f'module.{name}': p for name, p in state.items()}  # of data-parallel training
    save_file(state, tmp_path / 'image.safetensors')
    arguments = [str(config), str(tmp_path / 'image.safetensors'), str(tmp_path / 'out')]
    with pytest.raises(ValueError, match=r'unknown \(enc\.'):
        inflate.main(arguments)
    inflate.main([*arguments, '--rename', 'enc.=encoder.'])
    image = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = images.float().encode(image).mean
        torch.testing.assert_close(VideoVAE.from_pretrained(tmp_path / 'out').encode(image).mean, expected)

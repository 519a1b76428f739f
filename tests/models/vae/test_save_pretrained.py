"""Saving a VAE to a folder and loading it gives the same VAE."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

from pvvae_plugin import config_path
from pvvae_plugin.cli import export
from pvvae_plugin.models import DiffusersVAE, PredictiveVAE, VideoVAE
from pvvae_plugin.models.checkpoints import resolve_checkpoint
from pvvae_plugin.registry import MODELS


@pytest.fixture
def vae(tiny_vae_config):
    vae = MODELS.build(tiny_vae_config).eval()
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    vae.latent_std.fill_(2.0)
    return vae


def assert_alike(a, b, size=32):
    video = torch.rand(1, 3, 9, size, size) * 2 - 1
    with torch.no_grad():
        assert torch.equal(a.encode(video).mean, b.encode(video).mean)
        assert torch.equal(a.predict(video[:, :, :5], 9), b.predict(video[:, :, :5], 9))
    assert torch.equal(a.latent_std, b.latent_std)


def test_outputs_are_bit_equal(vae, tmp_path):
    vae.knows_statistics = True
    vae.save_pretrained(tmp_path / 'a' / 'vae')
    again = PredictiveVAE.from_pretrained(tmp_path / 'a' / 'vae')
    assert_alike(vae, again)
    assert again.knows_statistics and not again.training
    assert len(again.source['sha256']) == 64
    assert_alike(vae, MODELS.build({'type': 'PretrainedVAE', 'pretrained': str(tmp_path / 'a' / 'vae')}))
    again.save_pretrained(tmp_path / 'b')
    for name in ('config.json', 'model.safetensors'):
        assert (tmp_path / 'b' / name).read_bytes() == (tmp_path / 'a' / 'vae' / name).read_bytes()


def test_how_a_run_computed_is_not_kept(tiny_vae_config, tmp_path):
    MODELS.build({**tiny_vae_config, 'gradient_checkpointing': True, 'pixels_at_once': 5}).save_pretrained(tmp_path)
    again = VideoVAE.from_pretrained(tmp_path)
    assert not again.encoder.gradient_checkpointing
    assert again.pixels_at_once > 5


def test_a_compiled_part_does_not_show_in_the_folder(vae, tmp_path):
    decoder, vae.decoder = vae.decoder, torch.compile(vae.decoder)
    vae.save_pretrained(tmp_path)
    vae.decoder = decoder
    assert_alike(vae, VideoVAE.from_pretrained(tmp_path))


def test_a_vae_of_diffusers_keeps_its_weights_where_diffusers_finds_them(diffusers_folders, tmp_path):
    import diffusers

    vae = MODELS.build({'type': 'DiffusersVAE', 'pretrained': diffusers_folders['wan22'], 'subfolder': 'vae'}).eval()
    with torch.no_grad():
        vae.padding_token.fill_(0.3)
        vae.last_layer.mul_(1.5)
    vae.save_pretrained(tmp_path)
    assert_alike(vae, DiffusersVAE.from_pretrained(tmp_path))
    theirs = diffusers.AutoencoderKLWan.from_pretrained(tmp_path, subfolder='vae')
    assert torch.equal(theirs.decoder.conv_out.weight, vae.last_layer)


@pytest.fixture
def fine_tuned(diffusers_folders):
    """A wrapped VAE by name, as ``load_backbone`` leaves it: trained, so the published statistics are void."""

    def build(name='wan21'):
        vae = MODELS.build({'type': 'DiffusersVAE', 'pretrained': diffusers_folders[name], 'subfolder': 'vae'}).eval()
        with torch.no_grad():
            vae.padding_token.fill_(0.3)
        vae.knows_statistics = False
        return vae

    return build


@pytest.mark.parametrize('name', ['wan21', 'cogvideox', 'hunyuan'])
def test_statistics_that_no_longer_hold_are_not_exported_for_diffusers(name, fine_tuned, tmp_path):
    import diffusers

    vae = fine_tuned(name)
    vae.save_pretrained(tmp_path)
    text = (tmp_path / 'vae' / 'config.json').read_text()
    assert json.loads(text).get('latents_mean') is None and json.loads(text).get('scaling_factor') is None
    assert str(tmp_path.parent) not in text and '_name_or_path' not in text  # no local paths
    theirs = getattr(diffusers, type(vae.vae).__name__).from_pretrained(tmp_path / 'vae')
    assert torch.equal([p for p in theirs.decoder.parameters() if p.ndim == 5][-1], vae.last_layer)
    again = MODELS.build({'type': 'DiffusersVAE', 'pretrained': str(tmp_path / 'vae')})
    assert not again.knows_statistics


def test_measured_statistics_are_exported_for_diffusers(fine_tuned, diffusers_folders, tmp_path):
    vae = fine_tuned()
    vae.latent_std.fill_(3.0)
    vae.knows_statistics = True
    vae.save_pretrained(tmp_path)
    assert json.loads((tmp_path / 'vae' / 'config.json').read_text())['latents_std'] == [3.0] * 16
    published = MODELS.build({'type': 'DiffusersVAE', 'pretrained': diffusers_folders['hunyuan'], 'subfolder': 'vae'})
    published.save_pretrained(tmp_path / 'copy')
    assert json.loads((tmp_path / 'copy' / 'vae' / 'config.json').read_text())['scaling_factor'] == 0.476986


@pytest.mark.parametrize(('inside', 'subfolder'), [('', None), ('', 'vae'), ('vae', None)])
def test_a_wrapped_vae_is_opened_with_its_own_padding_token(inside, subfolder, fine_tuned, tmp_path):
    vae = fine_tuned()
    vae.latent_std.fill_(3.0)
    vae.knows_statistics = True
    vae.trained_frames = 9
    vae.save_pretrained(tmp_path)
    again = DiffusersVAE(str(tmp_path / inside), subfolder)
    assert torch.equal(again.padding_token, vae.padding_token)
    assert torch.equal(again.latent_std, vae.latent_std)
    assert again.knows_statistics and again.trained_frames == 9


def test_a_folder_that_holds_something_else_is_not_opened_as_a_wrapped_vae(vae, fine_tuned, tmp_path):
    wrapped = fine_tuned()
    wrapped.save_pretrained(tmp_path / 'a')
    with pytest.raises(
        ValueError, match="padding='gaussian', but the VAE in .*/a was trained with padding='learnable': set"
    ):
        DiffusersVAE(str(tmp_path / 'a'), padding='gaussian')
    with torch.no_grad():
        wrapped.last_layer.zero_()
    wrapped.save_pretrained(tmp_path / 'b')
    shutil.rmtree(tmp_path / 'a' / 'vae')
    shutil.copytree(tmp_path / 'b' / 'vae', tmp_path / 'a' / 'vae')
    for load in (DiffusersVAE, VideoVAE.from_pretrained):
        with pytest.raises(ValueError, match='/a/vae is not the network that was exported to .*/a: export it again'):
            load(str(tmp_path / 'a'))
    shutil.rmtree(tmp_path / 'a' / 'vae')
    with pytest.raises(FileNotFoundError, match='/a holds no vae/config.json: copy the whole folder'):
        DiffusersVAE(str(tmp_path / 'a'))
    vae.save_pretrained(tmp_path / 'c')
    with pytest.raises(ValueError, match="/c holds a PredictiveVAE .*type='PretrainedVAE', pretrained='.*/c'"):
        DiffusersVAE(str(tmp_path / 'c'))
    shutil.copytree(tmp_path / 'b' / 'vae', tmp_path / 'c' / 'vae')
    with pytest.raises(ValueError, match='/c/vae is not part of the exported VAE in .*/c: move it'):
        DiffusersVAE(str(tmp_path / 'c'), 'vae')


def test_on_the_meta_device_no_weights_are_read(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    (tmp_path / 'model.safetensors').unlink()
    with torch.device('meta'):
        assert VideoVAE.from_pretrained(tmp_path).latent_channels == 4
    with pytest.raises(FileNotFoundError, match='copy the whole folder'):
        VideoVAE.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'type': 'LatentDiT'}, "holds 'LatentDiT', which is not a registered VideoVAE"),
        ({'type': 'NoSuchClass'}, "holds 'NoSuchClass', which is not a registered VideoVAE"),
        ({'type': 5}, 'type must be of type str, got 5'),
        ({'arguments': {'latent_channels': 8}}, 'of another shape'),
        ({'arguments': {'widths': 8}}, 'cannot be built with these arguments'),
        ({'arguments': {'strides': 'ab'}}, 'cannot be built with these arguments'),
        (
            {'arguments': {'init_cfg': {'type': 'Constant', 'layer': 'Conv3d', 'val': 1}}},
            'argument init_cfg is not allowed',
        ),
        ({'type': ''}, 'which is not a registered VideoVAE'),
    ],
)
def test_what_does_not_fit_is_refused(vae, tmp_path, changes, message):
    vae.save_pretrained(tmp_path)
    path = tmp_path / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        VideoVAE.from_pretrained(tmp_path)


def test_a_type_imports_nothing(vae, tmp_path):
    """A registry lookup would import the module of a dotted name."""
    sys.modules.pop('this', None)  # a module of the standard library that prints on import
    vae.save_pretrained(tmp_path)
    path = tmp_path / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'type': 'this.s'}))
    with pytest.raises(ValueError, match="holds 'this.s', which is not a registered VideoVAE"):
        VideoVAE.from_pretrained(tmp_path)
    assert 'this' not in sys.modules


def test_an_export_that_ends_before_its_time_leaves_no_mixture(vae, tmp_path, monkeypatch):
    vae.save_pretrained(tmp_path)
    monkeypatch.setattr(PredictiveVAE, '_save_parts', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        vae.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match='holds no config.json'):
        VideoVAE.from_pretrained(tmp_path)


def test_damaged_and_foreign_folders(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    weights = tmp_path / 'model.safetensors'
    save_file({name: tensor.contiguous().to(torch.int8) for name, tensor in vae.state_dict().items()}, weights)
    with pytest.raises(ValueError, match='has dtype torch.int8, but weights must be floating point'):
        VideoVAE.from_pretrained(tmp_path)
    vae.latent_std.zero_()
    vae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='latent_std must be positive, got 0'):
        VideoVAE.from_pretrained(tmp_path)
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(ValueError, match='is damaged'):
        VideoVAE.from_pretrained(tmp_path)
    (tmp_path / 'config.json').write_text('{"_class_name": "AutoencoderKLWan"}')
    with pytest.raises(ValueError, match='is not the config of a VAE'):
        VideoVAE.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match='it is not a VAE folder'):
        VideoVAE.from_pretrained(tmp_path / 'nothing')


def test_a_vae_is_built_again_from_its_description(vae, fine_tuned, tmp_path):
    for original in (vae, fine_tuned()):
        torch.save(original.describe(), tmp_path / 'description.pth')
        description = torch.load(tmp_path / 'description.pth', weights_only=True)
        again = VideoVAE.from_description(description)
        assert type(again) is type(original) and not again.latent_mean.is_meta
        again.load_state_dict(original.state_dict())
        assert_alike(original, again.eval())
    for changes, message in (
        ({'type': 'this.s'}, "holds 'this.s', which is not a registered VideoVAE"),
        ({'arguments': {'init_cfg': {}}}, 'argument init_cfg is not allowed'),
        ({'network': {'_class_name': 'Unet'}}, "'Unet'; supported classes"),
        ({'network': None}, 'DiffusersVAE cannot be built'),
    ):
        with pytest.raises(ValueError, match=message):
            VideoVAE.from_description({**description, **changes})


def test_a_checkpoint_is_exported_by_one_command(tmp_path, capsys):
    trained = MODELS.build(Config.fromfile(config_path('pvvae_demo.py')).model.backbone).eval()
    (tmp_path / 'run').mkdir()
    state = {f'backbone.{name}': tensor for name, tensor in trained.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'run' / 'iter_7.pth')
    export.main([config_path('pvvae_demo.py'), str(tmp_path / 'run'), str(tmp_path / 'out')])
    assert 'PredictiveVAE, 2.4 M parameters' in capsys.readouterr().out
    again = VideoVAE.from_pretrained(tmp_path / 'out')
    assert_alike(trained, again)
    assert again.trained_frames == 9
    # A run that started from an exported folder which is gone
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = {config_path("pvvae_demo.py")!r}\n'
        "model = dict(backbone=dict(_delete_=True, type='PretrainedVAE', pretrained='gone'))\n"
    )
    torch.save({'state_dict': state, 'vae': again.describe()}, tmp_path / 'run' / 'iter_8.pth')
    export.main([str(config), str(tmp_path / 'run'), str(tmp_path / 'next')])
    assert_alike(trained, VideoVAE.from_pretrained(tmp_path / 'next'))
    with pytest.raises(FileNotFoundError, match="type='PretrainedVAE'"):
        resolve_checkpoint(str(tmp_path / 'out'))

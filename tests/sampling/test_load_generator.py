"""Which weights a generator is loaded with, and which are refused; classes by name and number."""

import pytest
import torch
from mmengine.config import Config

from pvvae_plugin.files import file_sha256
from pvvae_plugin.models.checkpoints import generator_config
from pvvae_plugin.models.generator_checks import warn_once
from pvvae_plugin.registry import MODELS
from pvvae_plugin.sampling import load_generator, resolve_labels


@pytest.fixture
def cfg(tiny_vae_config):
    head = {'type': 'LatentDiT', 'latent_channels': 4, 'num_classes': 3, 'depth': 2, 'hidden_size': 32, 'num_heads': 2}
    model = {
        'type': 'LatentVideoGenerator',
        'backbone': tiny_vae_config,
        'backbone_checkpoint': None,
        'head': head,
    }
    return Config({'model': model})


@pytest.fixture
def record(cfg):
    """A checkpoint as FrozenBackboneHook and TrainedWeightsEMAHook write it."""
    model = MODELS.build(cfg.model)
    model.backbone.latent_mean.fill_(0.25)
    state = {n: p for n, p in model.state_dict().items() if n.startswith(('head.', 'backbone.latent_'))}
    raw = {n: torch.full_like(p, 0.5) for n, p in state.items() if n.startswith('head.')}
    return {'state_dict': state, 'raw_weights': raw, 'backbone_source': None}


def test_averages_or_raw_weights_are_loaded(cfg, record, tmp_path):
    path = tmp_path / 'iter_1.pth'
    torch.save(record, path)
    model = load_generator(cfg, str(path))
    assert not model.training
    for name, expected in record['state_dict'].items():
        assert torch.equal(model.state_dict()[name].cpu(), expected), name
    raw = load_generator(cfg, str(tmp_path), raw_weights=True).state_dict()
    assert all(torch.equal(raw[name].cpu(), expected) for name, expected in record['raw_weights'].items())
    assert (raw['backbone.latent_mean'] == 0.25).all()


def test_names_of_a_wrapped_network_are_unwrapped(cfg, record, tmp_path):
    wrapped = {f'module._orig_mod.{name}': tensor for name, tensor in record['state_dict'].items()}
    torch.save({**record, 'state_dict': wrapped}, tmp_path / 'iter_1.pth')
    model = load_generator(cfg, str(tmp_path))
    for name, expected in record['state_dict'].items():
        assert torch.equal(model.state_dict()[name].cpu(), expected), name


def test_what_does_not_fit_is_refused(cfg, record, tmp_path):
    path = tmp_path / 'it.pth'
    torch.save({**record, 'raw_weights': {}}, path)
    with pytest.raises(ValueError, match='without TrainedWeightsEMAHook'):
        load_generator(cfg, str(path), raw_weights=True)
    state = record['state_dict']
    torch.save({'state_dict': {n: p for n, p in state.items() if n != 'backbone.latent_std'}}, path)
    with pytest.raises(ValueError, match='lacks backbone.latent_std'):
        load_generator(cfg, str(path))
    torch.save({'state_dict': {n: p for n, p in state.items() if n != 'head.embed.weight'}}, path)
    with pytest.raises(ValueError, match='head.embed.weight'):
        load_generator(cfg, str(path))
    path.write_bytes(b'nothing')
    with pytest.raises(ValueError, match='damaged'):
        load_generator(cfg, str(path))


def test_guidance_follows_the_class_dropout_of_the_checkpoint(cfg, record, tmp_path):
    trained = {**generator_config(cfg.model), 'class_dropout': 0.0}
    torch.save({**record, 'generator_config': trained}, tmp_path / 'it.pth')
    cfg.model.class_dropout = 0.1  # of the config, not of the training
    model = load_generator(cfg, str(tmp_path / 'it.pth'))
    with pytest.raises(ValueError, match='guidance_scale=3'):
        model.generate(1, 5, (32, 32), labels=[0], guidance_scale=3)
    del trained['class_dropout']  # written by an earlier version
    torch.save({**record, 'generator_config': trained}, tmp_path / 'it.pth')
    load_generator(cfg, str(tmp_path / 'it.pth')).generate(1, 5, (32, 32), labels=[0], guidance_scale=3)


def test_a_checkpoint_of_weights_only_is_told(cfg, record, tiny_vae_config, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('pvvae_plugin.models.generator_checks.print_log', lambda text, *_: told.append(text))
    warn_once.cache_clear()
    vae = MODELS.build(tiny_vae_config)
    whole = {f'backbone.{name}': tensor for name, tensor in vae.state_dict().items()}
    torch.save({'state_dict': whole}, tmp_path / 'vae.pth')

    def load(checkpoint, vae_path):
        told.clear()
        torch.save(checkpoint, tmp_path / 'it.pth')
        cfg.model.backbone_checkpoint = vae_path
        load_generator(cfg, str(tmp_path / 'it.pth'))
        return told

    path = str(tmp_path / 'vae.pth')
    source = {'path': path, 'sha256': file_sha256(path)}
    assert load({**record, 'backbone_source': source}, path) == []
    stripped = {'state_dict': record['state_dict']}
    (text,) = load(stripped, path)
    assert text.startswith(f'{tmp_path}/it.pth does not record its VAE (weights only)') and path in text
    (text,) = load(stripped, None)
    assert text.startswith('model.backbone_checkpoint is None, and PredictiveVAE ')
    assert load({'state_dict': {**whole, **record['state_dict']}}, None) == []  # the file holds the VAE


def test_a_size_that_the_generator_never_saw_is_told_once(cfg, record, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('pvvae_plugin.models.generator_checks.print_log', lambda text, *_: told.append(text))
    warn_once.cache_clear()
    torch.save(record, tmp_path / 'it.pth')
    old = load_generator(cfg, str(tmp_path / 'it.pth'))
    told.clear()
    old.generate(1, 9, (32, 32), labels=[0])
    assert not told  # a checkpoint without the record
    trained_on = [{'num_frames': 5, 'size': [32, 48], 'latent_shape': [4, 2, 2, 3]}]
    torch.save({**record, 'trained_on': trained_on}, tmp_path / 'it.pth')
    model = load_generator(cfg, str(tmp_path / 'it.pth'))
    told.clear()
    model.generate(1, 5, (32, 48), labels=[0])
    assert not told
    for _ in range(2):
        model.generate(1, 9, (32, 32), labels=[0])
    assert len(told) == 1
    assert 'clips of 9 x 32 x 32 (latents 3 x 2 x 2), but ' in told[0]
    assert 'trained on 5 x 32 x 48 (latents 2 x 2 x 3)' in told[0]


def test_a_config_of_a_vae_is_refused(tiny_vae_config, record, tmp_path):
    torch.save(record, tmp_path / 'it.pth')
    model = {'type': 'VideoAutoencoder', 'backbone': tiny_vae_config, 'loss': {'type': 'PredictiveReconLoss'}}
    with pytest.raises(ValueError, match='is not a generator config: model.type is VideoAutoencoder'):
        load_generator(Config({'model': model}), str(tmp_path / 'it.pth'))


def test_classes_by_name_and_number():
    names = ('run', 'jump', '0')
    assert resolve_labels(['jump', '1', 'run'], names, 3) == [1, 1, 0]
    assert resolve_labels(['0'], names, 3) == [2]  # a name before a number
    assert resolve_labels(None, names, 3) == [0, 1, 2]
    assert resolve_labels(['2'], None, 3) == [2]
    assert resolve_labels(None, None, None) is None
    with pytest.raises(ValueError, match="no class 'fly': valid are 0..2, run, jump, 0"):
        resolve_labels(['run', 'fly'], names, 3)
    with pytest.raises(ValueError, match=r"no class '3': valid are 0\.\.2$"):
        resolve_labels(['3'], None, 3)
    with pytest.raises(ValueError, match='unconditional'):
        resolve_labels(['0'], None, None)

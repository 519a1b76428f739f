import hashlib
import json
import sys

import pytest
import torch

from pvvae_plugin.evaluation.extractors import VideoMAE, build_extractor
from pvvae_plugin.evaluation.protocols import PROTOCOLS


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Tiny encoder with its decoder, in the published format for pretraining."""
    transformers = pytest.importorskip('transformers')
    folder = tmp_path_factory.mktemp('videomae')
    config = transformers.VideoMAEConfig(
        image_size=16,
        patch_size=8,
        num_frames=4,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        decoder_num_attention_heads=2,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=1,
        decoder_intermediate_size=8,
    )
    torch.manual_seed(0)
    transformers.VideoMAEForPreTraining(config).save_pretrained(folder)
    return folder


def test_features_are_the_mean_of_the_last_tokens(folder):
    from transformers import VideoMAEForPreTraining

    extractor = VideoMAE(folder)
    assert (extractor.feature_dim, extractor.min_frames, extractor.max_frames) == (12, 4, 4)
    video = torch.rand(2, 3, 6, 16, 16) * 2 - 1
    features = extractor(video)
    encoder = VideoMAEForPreTraining.from_pretrained(folder).videomae.eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    frames = ((video[:, :, :4] / 2 + 0.5).movedim(1, -1) - mean) / std  # (N, T, H, W, 3)
    with torch.no_grad():
        tokens = encoder(frames.movedim(-1, 2)).last_hidden_state
    assert tokens.shape == (2, 2 * 4, 12)
    torch.testing.assert_close(features, tokens.mean(dim=1))
    assert extractor(torch.zeros(1, 3, 4, 30, 50)).shape == (1, 12)
    with pytest.raises(ValueError, match='at least 4 frames'):
        extractor(video[:, :, :3])


def test_record(folder, tmp_path):
    extractor = build_extractor({'type': 'VideoMAE', 'path': str(folder)}, PROTOCOLS['paper'])
    weights, config = (
        hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in ('model.safetensors', 'config.json')
    )
    said = {'file': 'model.safetensors', 'sha256': weights, 'known_as': None, 'config_sha256': config}
    assert extractor.record()['weights'] == said
    with pytest.raises(ValueError, match='sha256'):
        VideoMAE(folder, sha256='0' * 64)
    for file in ('config.json', 'model.safetensors'):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps({'image_mean': [0.5] * 3, 'image_std': [0.25] * 3}))
    said = VideoMAE(tmp_path).preprocessing()
    assert (said['mean'], said['std'], said['size']) == ([0.5] * 3, [0.25] * 3, 16)


def test_weights_of_another_network(folder, tmp_path):
    config = json.loads((folder / 'config.json').read_text())
    (tmp_path / 'model.safetensors').write_bytes((folder / 'model.safetensors').read_bytes())
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'num_hidden_layers': 3}))
    with pytest.raises(ValueError, match='lacks weights'):
        VideoMAE(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'hidden_size': 24}))
    with pytest.raises(ValueError, match='cannot be loaded as a VideoMAE'):
        VideoMAE(tmp_path)


def test_missing_files(tmp_path, monkeypatch):
    monkeypatch.delenv('PVVAE_WEIGHTS', raising=False)
    with pytest.raises(FileNotFoundError, match='(?s)extractor.path.*MCG-NJU'):
        VideoMAE(tmp_path / 'videomae-base')
    (tmp_path / 'config.json').write_text('{}')
    (tmp_path / 'pytorch_model.bin').touch()
    with pytest.raises(FileNotFoundError, match='no model.safetensors'):
        VideoMAE(tmp_path)


def test_without_transformers(tmp_path, monkeypatch):
    for file in ('config.json', 'model.safetensors'):
        (tmp_path / file).write_text('{}')
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match=r'pip install "pvvae_plugin\[videomae\]"'):
        VideoMAE(tmp_path)

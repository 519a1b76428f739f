"""The script that reads motion out of latents: what it reads, on what, and that it says what it cannot."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config

from pvvae_plugin import config_path
from pvvae_plugin.cli.analysis import probe_latents as tool
from pvvae_plugin.datasets import SyntheticVideoDataset
from pvvae_plugin.datasets.errors import ClipError
from pvvae_plugin.evaluation.latent_analysis import ClipLatents
from pvvae_plugin.registry import MODELS


def clip_of(seed: int) -> ClipLatents:
    """3 latent frames of 2 x 3 cells with 4 channels, and flow of 16 x 24 pixels."""
    rng = np.random.default_rng(seed)
    latents = torch.from_numpy(rng.normal(size=(4, 3, 2, 3)))
    flows = rng.normal(size=(2, 16, 24, 2)).astype(np.float32)
    return ClipLatents(np.zeros((3, 16, 24, 3), np.uint8), latents, torch.ones(4), flows)


def test_rows_pair_a_latent_frame_with_motion_in_its_group_and_the_next():
    dataset = SyntheticVideoDataset(length=7, clip_len=9, size=24, difficulty='hard')
    clip = clip_of(0)
    rows = tool.rows_of(5, clip, dataset, temporal_ratio=4, spatial_ratio=8)
    z, places = clip.latents.numpy(), dataset.positions(5).mean(axis=0)
    velocity = np.array([(places[4] - places[0]) / 4, (places[8] - places[4]) / 4])
    expected = {
        # Frame 1 ends the first group that moves, frame 2 the second; what follows frame 2 is not in the clip.
        'velocity_now': ([z[:, t].ravel() for t in (1, 2)], velocity),
        'velocity_next': ([z[:, 1].ravel()], velocity[1:]),
        'flow_now': ([z[:, t, y, x] for t in (1, 2) for y in range(2) for x in range(3)], None),
        'flow_next': ([z[:, 1, y, x] for y in range(2) for x in range(3)], None),
    }
    cells = [
        clip.flows[t, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].mean(axis=(0, 1))
        for t in (0, 1)
        for y in range(2)
        for x in range(3)
    ]
    assert rows.features.keys() == rows.targets.keys() == expected.keys()
    for name, (features, targets) in expected.items():
        targets = {'flow_now': cells, 'flow_next': cells[6:]}.get(name, targets)
        np.testing.assert_allclose(rows.features[name].numpy(), np.array(features), err_msg=name)
        np.testing.assert_allclose(rows.targets[name].numpy(), np.array(targets), rtol=1e-5, err_msg=name)
    rows = tool.rows_of(5, clip, torch.utils.data.TensorDataset(torch.zeros(7)), 4, 8)
    assert set(rows.features) == {'flow_now', 'flow_next'}  # of other clips the truth is not known


def rows_with(tool, linear: bool, seeds: range) -> list:
    """Rows whose targets are a linear map of the features and a little noise, or nothing but noise."""
    weight = torch.randn(6, 2, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    found = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(3, 6, generator=generator, dtype=torch.float64)
        noise = torch.randn(3, 2, generator=generator, dtype=torch.float64)
        found.append(tool.Rows({'a': x}, {'a': x @ weight + 0.1 * noise if linear else noise}))
    return found


def test_a_probe_finds_what_is_linear_and_nothing_in_noise():
    for linear in (True, False):
        found = tool.probe(rows_with(tool, linear, range(100)), rows_with(tool, linear, range(100, 160)), 'a')
        assert found['num_features'] == 6 and found['num_judged'] == 180
        assert found['num_fitted'] == 3 * 87  # every eighth clip chooses the penalty
        if linear:
            assert found['explained_variance'] > 0.99
            assert found['endpoint_error'] < 0.2 < found['endpoint_error_of_mean']
        else:
            assert abs(found['explained_variance']) < 0.1


@pytest.fixture
def run(tmp_path):
    """A config of short clips and the checkpoint of an untrained VAE."""
    cfg = Config.fromfile(config_path('pvvae_demo.py'))
    cfg.model.backbone.update(latent_channels=4, encoder_widths=(8, 8, 8), decoder_widths=(8, 8, 8))
    cfg.train_dataloader.dataset.length = 20
    cfg.val_dataloader.dataset.length = 12
    torch.manual_seed(0)
    cfg.default_scope = 'pvvae_plugin'
    model = MODELS.build({**cfg.model, 'type': 'pvvae_plugin.VideoAutoencoder'})
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'vae.pth')
    cfg.dump(tmp_path / 'config.py')
    return [str(tmp_path / 'config.py'), str(tmp_path / 'vae.pth'), '--num-clips', '24', '--num-pictures', '2']


def test_from_a_checkpoint_to_numbers_and_pictures(run, tmp_path, capsys):
    tool.main([*run, '--out', str(tmp_path / 'out')])
    record = json.loads((tmp_path / 'out' / 'probes.json').read_text())
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['pca_0.png', 'pca_1.png', 'probes.json']
    probes = record['probes']
    assert {name: found['num_judged'] for name, found in probes.items()} == {
        'flow_now': 12 * 2 * 16,
        'flow_next': 12 * 16,
        'velocity_now': 12 * 2,
        'velocity_next': 12,
    }
    assert probes['velocity_now']['num_fitted'] == 21 * 2  # 24 clips of 20, every eighth apart
    assert len(record['latent_temporal_distance']['per_clip']) == 12
    assert len(record['latent_temporal_distance']['of_frozen_clips']['mean']) == 2
    assert f'velocity_now   {probes["velocity_now"]["explained_variance"]:.3f}' in capsys.readouterr().out
    tool.main([*run, '--out', str(tmp_path / 'again')])
    again = json.loads((tmp_path / 'again' / 'probes.json').read_text())
    assert again['probes'] == probes


def test_replacements_of_unreadable_clips_are_not_measured(run, tmp_path, monkeypatch):
    load = SyntheticVideoDataset.load_clip

    def fail_at_3(dataset, info, rng):
        if '/000003_' in info['path']:
            raise ClipError(info['path'], 'damaged')
        return load(dataset, info, rng)

    monkeypatch.setattr(SyntheticVideoDataset, 'load_clip', fail_at_3)
    tool.main([*run, '--out', str(tmp_path / 'out')])
    record = json.loads((tmp_path / 'out' / 'probes.json').read_text())
    assert record['num_held_out'] == len(record['latent_temporal_distance']['per_clip']) == 11
    assert record['num_clips'] == 22  # 24 clips of 20, which start over with number 3


def test_overrides_reach_the_network_and_are_recorded(run, tmp_path):
    options = ['--cfg-options', 'model.backbone.latent_channels=6']
    with pytest.raises(ValueError, match=r'padding_token: \(4,\) in the file, \(6,\) in the model'):
        tool.main([*run, '--out', str(tmp_path / 'out'), *options])
    options = ['--cfg-options', 'val_dataloader.dataset.length=3']
    tool.main([*run, '--out', str(tmp_path / 'out'), *options])
    record = json.loads((tmp_path / 'out' / 'probes.json').read_text())
    assert record['overrides'] == {'val_dataloader.dataset.length': '3'}
    assert (record['num_held_out'], record['held_out_data']['length'], record['train_data']['length']) == (3, 3, 20)


def test_what_cannot_work_is_said_in_one_line(run, tmp_path, capsys):
    for more, message in [
        (['--num-clips', '3'], '--num-clips must be at least 16, got 3'),
        (['--cfg-options', 'val_dataloader.dataset.clip_len=5'], 'clips of at least 9 frames (3 groups), got 5'),
    ]:
        with pytest.raises((SystemExit, ValueError)) as ended:
            tool.main([*run, '--out', str(tmp_path / 'out'), *more])
        assert message in str(ended.value) + capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match='nowhere'):
        tool.main([run[0], 'nowhere', '--out', str(tmp_path / 'out')])

"""Cached latents: what is written is read back, and what is wrong is refused by name."""

import copy
import json
import pickle

import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from pvvae_plugin.datasets import ClipIndex, InfiniteClipSampler, LatentDataset, latent_shards
from pvvae_plugin.registry import DATASETS

SHAPE = (3, 2, 4, 4)  # C, t, h, w
SOURCE = {'checkpoint_sha256': 'abc', 'backbone_hash': 'def', 'flip': True}
FACTS = {
    'source': SOURCE,
    'checkpoint': 'vae.pth',
    'temporal_ratio': 4,
    'classes': ['run', 'jump'],
    'num_classes': 2,
}


def write(root, source=SOURCE, counts=(3, 2), offset=0.0):
    """A folder of random moments; returns them, mean and logvar ``(E, V, C, t, h, w)``."""
    root.mkdir(exist_ok=True)
    moments, start = [], 0
    for number, count in enumerate(counts):
        mean = torch.randn(count, 1 + source['flip'], *SHAPE) + offset
        logvar = torch.randn_like(mean) - 1
        rows = range(start, start + count)
        labels = [row % 3 - 1 for row in rows]
        entries = latent_shards.LatentEntries(mean, logvar, labels, rows, [0] * count, [f'{row}.mp4' for row in rows])
        latent_shards.write_shard(root, number, entries, [], source)
        moments.append((mean, logvar))
        start += count
    records = [latent_shards.read_record(root, number) for number in range(len(counts))]
    latent_shards.write_manifest(root, records, {**FACTS, 'source': source})
    return tuple(torch.cat(parts) for parts in zip(*moments, strict=True))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'latents', write(tmp_path / 'latents')


def test_samples_are_what_was_written(folder):
    root, (mean, logvar) = folder
    dataset = DATASETS.build({'type': 'LatentDataset', 'data_root': str(root), 'test_mode': True, 'verify': True})
    assert len(dataset) == 5
    assert dataset.clip_len == 5
    for index in range(5):
        sample = dataset[ClipIndex(index, draw_key=7)]
        assert torch.equal(sample['inputs'], torch.cat((mean[index, 0], logvar[index, 0])))
        label = index % 3 - 1
        expected = {'path': f'{index}.mp4', 'label': None if label < 0 else label, 'draw_key': 7}
        assert sample['data_samples'].metainfo == expected
    assert dataset.metainfo['classes'] == ['run', 'jump']


def test_the_view_follows_from_the_key(folder):
    root, (mean, _) = folder
    dataset = LatentDataset(root)

    def view(key):
        found = dataset[ClipIndex(1, key)]['inputs'][: SHAPE[0]]
        return next(v for v in range(2) if torch.equal(found, mean[1, v]))

    views = [view(key) for key in range(40)]
    assert views == [view(key) for key in range(40)]
    assert 8 < sum(views) < 32


def test_one_view_without_mirrored_clips(tmp_path):
    mean, _ = write(tmp_path / 'latents', {**SOURCE, 'flip': False})
    dataset = LatentDataset(tmp_path / 'latents')
    for key in range(10):
        assert torch.equal(dataset[ClipIndex(4, key)]['inputs'][: SHAPE[0]], mean[4, 0])


def test_workers_give_what_the_main_process_gives(folder):
    root, _ = folder
    dataset = LatentDataset(root)
    dataset[0]  # opens a shard before the workers are forked

    def batches(num_workers):
        sampler = InfiniteClipSampler(dataset, seed=3)
        loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=num_workers, collate_fn=pseudo_collate)
        return [batch for batch, _ in zip(loader, range(4), strict=False)]

    for alone, shared in zip(batches(0), batches(2), strict=True):
        assert torch.equal(torch.stack(alone['inputs']), torch.stack(shared['inputs']))
        assert [s.metainfo for s in alone['data_samples']] == [s.metainfo for s in shared['data_samples']]


def test_open_shards_are_neither_pickled_nor_copied(folder):
    root, _ = folder
    dataset = LatentDataset(root, test_mode=True)
    first = dataset[0]['inputs']
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert torch.equal(other[0]['inputs'], first)


def test_statistics_are_those_of_samples(tmp_path):
    # Far from zero, where sums of squares would lose the variance.
    mean, logvar = write(tmp_path / 'latents', counts=(5, 1, 2), offset=1000.0)
    manifest = LatentDataset(tmp_path / 'latents').manifest
    for c in range(SHAPE[0]):
        values = mean[:, :, c].flatten().tolist()
        expected = sum(values) / len(values)
        variance = sum((value - expected) ** 2 for value in values) / len(values)
        variance += sum(logvar[:, :, c].double().exp().flatten().tolist()) / len(values)
        assert manifest['latent_mean'][c] == pytest.approx(expected, rel=1e-12)
        assert manifest['latent_std'][c] == pytest.approx(variance**0.5, rel=1e-9)
    noise = torch.randn(200, *mean.shape)
    drawn = (mean + (0.5 * logvar).exp() * noise).transpose(0, 3).flatten(1)
    assert drawn.std(1).tolist() == pytest.approx(manifest['latent_std'], rel=0.02)


def test_no_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'manifest.json not found.*extract_latents'):
        LatentDataset(tmp_path)


def test_another_version(folder):
    root, _ = folder
    manifest = json.loads((root / 'manifest.json').read_text())
    (root / 'manifest.json').write_text(json.dumps({**manifest, 'format_version': 9}))
    with pytest.raises(ValueError, match=r'manifest.json has format_version 9, but this release reads 1'):
        LatentDataset(root)


def test_broken_shards(folder):
    root, _ = folder
    shard = root / 'shard-00001.safetensors'
    content = shard.read_bytes()

    shard.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r'shard-00001.safetensors is damaged: it has \d+ bytes'):
        LatentDataset(root)
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    LatentDataset(root)  # the size is right
    with pytest.raises(ValueError, match='shard-00001.safetensors is damaged: its sha256'):
        LatentDataset(root, verify=True)
    shard.write_bytes(b'\xff' * len(content))
    with pytest.raises(ValueError, match='shard-00001.safetensors cannot be read'):
        LatentDataset(root)
    shard.unlink()
    with pytest.raises(ValueError, match='shard-00001.safetensors is missing'):
        LatentDataset(root)


def test_latents_of_another_vae(folder, tmp_path):
    root, _ = folder
    LatentDataset(root, vae_sha256='abc', backbone_hash='def')
    with pytest.raises(ValueError, match=r"manifest.json belongs to another VAE: .*'abc'.*vae\.pth.*vae_sha256='xyz'"):
        LatentDataset(root, vae_sha256='xyz')
    with pytest.raises(ValueError, match=r"manifest.json belongs to another VAE: .*'def'.*backbone_hash='xyz'"):
        LatentDataset(root, backbone_hash='xyz')

    write(tmp_path / 'others', {**SOURCE, 'checkpoint_sha256': 'xyz'})  # of the same sizes
    shard = 'shard-00000.safetensors'
    (root / shard).write_bytes((tmp_path / 'others' / shard).read_bytes())
    with pytest.raises(ValueError, match=rf"{shard} does not match manifest.json.*checkpoint_sha256='xyz'"):
        LatentDataset(root)


def test_shards_of_different_shapes(tmp_path):
    write(tmp_path)
    records = [latent_shards.read_record(tmp_path, number) for number in range(2)]
    records[1]['latent_shape'] = [3, 2, 4, 5]
    with pytest.raises(ValueError, match=r'shard-00001.safetensors have shape \[3, 2, 4, 5\]'):
        latent_shards.write_manifest(tmp_path, records, FACTS)


def test_backbone_hash_is_of_the_network():
    config = {'type': 'PredictiveVAE', 'strides': ((2, 1), (2, 1))}
    same = {'strides': [[2, 1], [2, 1]], 'type': 'PredictiveVAE', 'init_cfg': {'type': 'Pretrained'}}
    assert latent_shards.backbone_hash(config) == latent_shards.backbone_hash(same)
    assert latent_shards.backbone_hash(config) != latent_shards.backbone_hash({**config, 'latent_channels': 8})

"""The extraction script: latents are those of the clips, whatever interrupts or shares the work."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from safetensors.torch import load_file

from pvvae_plugin.cli import extract_latents
from pvvae_plugin.datasets import LatentDataset, SyntheticVideoDataset, latent_shards
from pvvae_plugin.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools' / 'extract_latents.py'
CONFIG = f"""
_base_ = '{ROOT / 'configs' / 'pvvae_demo.py'}'
model = dict(backbone=dict(latent_channels=4, encoder_widths=(8, 8, 8), decoder_widths=(8, 8, 8)))
train_dataloader = dict(num_workers=0, dataset=dict(length=10, pipeline=[
    dict(type='pvvae_plugin.RandomFlipClip', prob=1.0),
    dict(type='RandomTimeReverse', prob=1.0),
    dict(type='FutureDropSampler', temporal_ratio=4),
    dict(type='PackClip'),
]))
"""


def extract(*arguments):
    extract_latents.main([str(argument) for argument in arguments])


@pytest.fixture(scope='module')
def vae_run(tmp_path_factory):
    """Config, checkpoint and network of a VAE."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('vae')
    config = folder / 'config.py'
    config.write_text(CONFIG)
    backbone = MODELS.build({**Config.fromfile(config).model.backbone, '_scope_': 'pvvae_plugin'}).eval()
    save_checkpoint(backbone, folder / 'vae.pth')
    yield config, folder / 'vae.pth', backbone
    torch.set_num_threads(threads)


def save_checkpoint(backbone, path, leave_out=''):
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items() if name != leave_out}
    torch.save({'state_dict': state}, path)


@pytest.fixture(scope='module')
def latents(vae_run, tmp_path_factory):
    """A folder of ten clips in three shards, with mirrored views."""
    out = tmp_path_factory.mktemp('latents')
    extract(*vae_run[:2], out, '--flip', '--shard-size', 4, '--batch-size', 3)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@torch.no_grad()
def test_moments_are_those_of_the_clips(vae_run, latents):
    backbone = vae_run[2]
    clips = SyntheticVideoDataset(10, 9, 32, difficulty='plain', seed=0, pipeline=[{'type': 'PackClip'}])
    cached = LatentDataset(latents, test_mode=True)
    shards = [load_file(latents / shard['name']) for shard in cached.manifest['shards']]
    mirrored = torch.cat([torch.cat((shard['mean'], shard['logvar']), dim=2)[:, 1] for shard in shards])
    assert len(cached) == 10
    for index, sample in enumerate(cached):
        clip = clips[index]
        video = clip['inputs'][None] / 127.5 - 1
        for view, moments in ((video, sample['inputs']), (video.flip(-1), mirrored[index])):
            posterior = backbone.encode(view)
            expected = torch.cat((posterior.mean, posterior.logvar), dim=1)[0]
            # On a GPU convolutions multiply in TF32; the reference is made on the CPU.
            torch.testing.assert_close(moments, expected, rtol=1e-4, atol=5e-3 if torch.cuda.is_available() else 1e-5)
        assert (mirrored[index] - sample['inputs'].flip(-1)).abs().max() > 1e-2
        for key in ('label', 'path'):
            assert sample['data_samples'].get(key) == clip['data_samples'].get(key)


def test_the_manifest_says_what_the_latents_are(vae_run, latents):
    config, checkpoint, _ = vae_run
    manifest = json.loads((latents / 'manifest.json').read_text())
    assert manifest['latent_shape'] == [4, 3, 4, 4]
    assert (manifest['temporal_ratio'], manifest['spatial_ratio'], manifest['num_classes']) == (4, 8, 7)
    assert [shard['count'] for shard in manifest['shards']] == [4, 4, 2]
    assert manifest['dataset']['config']['pipeline'] == [{'type': 'PackClip'}]
    LatentDataset(
        latents,
        vae_sha256=latent_shards.file_sha256(checkpoint),
        backbone_hash=latent_shards.backbone_hash(Config.fromfile(config).model.backbone),
    )


def test_what_is_missing_or_damaged_is_made_again(vae_run, latents, tmp_path, capsys):
    whole = contents(latents)
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / 'manifest.json').unlink()
    (tmp_path / 'shard-00002.safetensors').unlink()
    damaged = whole['shard-00001.safetensors']
    (tmp_path / 'shard-00001.safetensors').write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    extract(*vae_run[:2], tmp_path, '--flip', '--shard-size', 4, '--batch-size', 3)
    assert 'shard-00001.safetensors is damaged: its sha256' in capsys.readouterr().out
    assert contents(tmp_path) == whole


def test_a_killed_extraction_goes_on_where_it_stopped(vae_run, tmp_path):
    arguments = ('--shard-size', '1', '--cfg-options', 'train_dataloader.dataset.length=60')
    command = [sys.executable, str(SCRIPT), *map(str, vae_run[:2]), str(tmp_path / 'killed'), *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, 'OMP_NUM_THREADS': '1'}) as process:
        while not (tmp_path / 'killed' / 'shard-00002.json').is_file():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / 'killed' / 'manifest.json').exists()
    with pytest.raises(FileNotFoundError, match='manifest.json'):
        LatentDataset(tmp_path / 'killed')
    first = tmp_path / 'killed' / 'shard-00000.safetensors'
    written = first.stat().st_mtime_ns
    for name in ('killed', 'whole'):
        extract(*vae_run[:2], tmp_path / name, *arguments)
    assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')
    assert first.stat().st_mtime_ns == written


def worker(rank, port, arguments):
    torch.set_num_threads(1)
    os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2'}
    os.environ |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
    extract(*arguments, '--launcher', 'pytorch')
    assert not dist.is_initialized()


@pytest.mark.skipif(not dist.is_available(), reason='torch was built without distributed')
def test_two_processes_write_what_one_writes(vae_run, latents, tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    arguments = (*vae_run[:2], tmp_path, '--flip', '--shard-size', 4, '--batch-size', 3)
    mp.spawn(worker, args=(port, arguments), nprocs=2)
    assert contents(tmp_path) == contents(latents)


def test_verify_names_what_is_damaged(vae_run, latents, tmp_path, capsys):
    extract(*vae_run[:2], latents, '--verify')
    assert '10 clips in 3 shards, all intact' in capsys.readouterr().out
    for name, content in contents(latents).items():
        (tmp_path / name).write_bytes(content[:-1] + b'!' if name == 'shard-00001.safetensors' else content)
    with pytest.raises(ValueError, match='shard-00001.safetensors is damaged'):
        extract(*vae_run[:2], tmp_path, '--verify')


def test_runs_are_not_mixed(vae_run, latents, tmp_path):
    config, checkpoint, backbone = vae_run
    with pytest.raises(ValueError, match=r'manifest.json was made with flip=True \(here False\)'):
        extract(config, checkpoint, latents, '--shard-size', 4)
    other = tmp_path / 'other.pth'
    save_checkpoint(MODELS.build({**Config.fromfile(config).model.backbone}), other)
    with pytest.raises(ValueError, match='manifest.json was made with checkpoint_sha256='):
        extract(config, other, latents, '--flip', '--shard-size', 4)
    save_checkpoint(backbone, other, leave_out='encoder.out.weight')
    with pytest.raises(ValueError, match=r'1 weights missing \(encoder.out.weight\)'):
        extract(config, other, tmp_path / 'new')


def test_unreadable_clips_are_left_out_and_listed(vae_run, tmp_path):
    images = tmp_path / 'images'
    for index, name in enumerate('abcde'):
        path = images / ('cat' if index % 2 else 'ant') / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(path), np.repeat(np.uint8(6 * np.arange(40) + index)[:, None, None], 32 * 3, 1).reshape(40, 32, 3)
        )
    broken = images / 'cat' / 'b.png'
    broken.write_bytes(b'no image')
    pipeline = "[dict(type='ResizeClip',size=32),dict(type='RandomCropClip',size=32),dict(type='PackClip')]"
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{vae_run[0]}'\n"
        f"train_dataloader = dict(num_workers=2, dataset=dict(_delete_=True, type='VideoDataset', "
        f"data_root='{images}', clip_len=1, pipeline={pipeline}))"
    )
    out = tmp_path / 'latents'
    extract(config, vae_run[1], out, '--clips-per-video', 2, '--shard-size', 2, '--dtype', 'float16')
    cached = LatentDataset(out, test_mode=True)
    # ant: a c e; cat: b d. Each twice; both clips of b were a shard of their own, which is not there.
    assert [Path(s['data_samples'].path).stem for s in cached] == list('aacceedd')
    assert [s['data_samples'].label for s in cached] == [0] * 6 + [1] * 2
    assert cached.manifest['skipped'] == [{'index': 3, 'draw': draw, 'path': str(broken)} for draw in (0, 1)]
    assert not (out / 'shard-00003.safetensors').exists()
    assert cached[0]['inputs'].dtype == torch.float32
    shard = load_file(out / 'shard-00000.safetensors')
    assert shard['mean'].dtype == torch.float16
    assert (shard['index'].tolist(), shard['draw'].tolist()) == ([0, 0], [0, 1])
    assert not torch.equal(shard['mean'][0], shard['mean'][1])  # another crop


def test_the_same_clip_is_not_encoded_twice(vae_run, tmp_path):
    with pytest.raises(ValueError, match='would encode each clip 3 times.*val split is in test_mode'):
        extract(*vae_run[:2], tmp_path, '--split', 'val', '--clips-per-video', 3)


def test_a_dataset_that_draws_its_clips_is_rejected(vae_run, tmp_path):
    config = tmp_path / 'weighted.py'
    config.write_text(
        f"_base_ = '{vae_run[0]}'\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='MotionWeightedDataset', "
        'dataset=_base_.train_dataloader.dataset))\n'
    )
    with pytest.raises(ValueError, match='MotionWeightedDataset, which does not list its clips; set train_'):
        extract(config, vae_run[1], tmp_path / 'latents')


def write_image(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((32, 32, 3), value, np.uint8))


@pytest.fixture
def images(vae_run, tmp_path):
    """Arguments that encode a folder of images: a and b in one shard, c and d in another. The image d is broken."""
    for number, name in enumerate('abcd'):
        write_image(tmp_path / 'images' / f'{name}.png', 60 * number)
    (tmp_path / 'images' / 'd.png').write_bytes(b'no image')
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{vae_run[0]}'\n"
        f"train_dataloader = dict(num_workers=0, dataset=dict(_delete_=True, type='VideoDataset', "
        f"data_root='{tmp_path / 'images'}', clip_len=1, pipeline=[dict(type='PackClip')]))"
    )
    arguments = (config, vae_run[1], tmp_path / 'latents', '--shard-size', 2)
    extract(*arguments)
    return arguments


def shards_changed(out, before):
    return [name for name, content in contents(out).items() if 'safetensors' in name and content != before.get(name)]


def test_a_replaced_video_is_named_and_encoded_again(images, tmp_path, capsys):
    out = images[2]
    before = contents(out)
    extract(*images)
    assert not shards_changed(out, before)
    write_image(tmp_path / 'images' / 'b.png', 200)
    capsys.readouterr()
    with pytest.raises(ValueError, match=r'1 of 4 videos changed.*b\.png.*without --verify'):
        extract(*images, '--verify')
    extract(*images)
    assert 'shard-00000.safetensors: 1 video changed' in capsys.readouterr().out
    assert shards_changed(out, before) == ['shard-00000.safetensors']
    extract(*images, '--verify')
    assert 'all intact' in capsys.readouterr().out


@pytest.mark.parametrize('kept_time', [False, True])
def test_a_repaired_video_is_tried_again(images, tmp_path, capsys, kept_time):
    out, path = images[2], tmp_path / 'images' / 'd.png'
    before, time_before = contents(out), path.stat().st_mtime_ns
    if kept_time:  # readable again without a change, like after an error of the network
        record = json.loads((out / 'shard-00001.json').read_text())
        write_image(path, 9)
        record['files'][str(path)] = [path.stat().st_size, time_before]
        os.utime(path, ns=(time_before, time_before))
        (out / 'shard-00001.json').write_text(json.dumps(record))
    extract(*images)
    if not kept_time:
        assert len(LatentDataset(out)) == 3 and not shards_changed(out, before)
        write_image(path, 9)
        extract(*images)
    assert len(LatentDataset(out)) == 4
    assert shards_changed(out, before) == ['shard-00001.safetensors']


def test_latents_that_do_not_record_their_files_still_work(images, tmp_path, capsys):
    out = images[2]
    for path in out.glob('shard-*.json'):
        record = json.loads(path.read_text())
        del record['files']
        path.write_text(json.dumps(record))
    before = contents(out)
    capsys.readouterr()
    extract(*images)
    assert not shards_changed(out, before)
    extract(*images, '--verify')
    assert capsys.readouterr().out.count('do not record the sizes and times of their videos') == 2


def test_verify_without_the_videos_says_that_they_were_not_compared(images, tmp_path, capsys):
    (tmp_path / 'images').rename(tmp_path / 'moved')
    extract(*images, '--verify')
    out = capsys.readouterr().out
    assert '3 clips in 2 shards, all intact' in out and 'videos are not on this machine' in out
    assert '1 unreadable' in out and 'd.png' in out

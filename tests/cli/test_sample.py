"""The sampling script on a tiny generator: what it writes, shares out, goes on with and refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from PIL import Image

from pvvae_plugin.cli import sample as sample_command
from pvvae_plugin.datasets import ClipError, SyntheticVideoDataset, read_clip
from pvvae_plugin.files import file_sha256
from pvvae_plugin.registry import MODELS
from pvvae_plugin.visualization import write_video
from pvvae_plugin.visualization.strips import PREDICTED

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools' / 'sample.py'
CONFIG = """
_base_ = '{root}/configs/dit_demo.py'
model = dict(
    backbone=dict(
        latent_channels=4, encoder_widths=(8, 8, 8), decoder_widths=(8, 8, 8), strides=((2, 1), (2, 1)), patch_size=4
    ),
    backbone_checkpoint='{vae}',
    head=dict(
        _delete_=True,
        type='LatentDiT',
        latent_channels=4,
        num_classes={classes},
        depth=2,
        hidden_size=32,
        num_heads=2,
    ),
)
train_dataloader = dict(dataset=dict(clip_len=9, size=32))
"""
NAMES = list(SyntheticVideoDataset.METAINFO['classes'])
SHEETS = ['grid.gif', 'grid.webm', 'samples.json', 'sheet.png']
CONDITIONED = ('--cfg-options', 'model.condition_prob=0.5')


def sample(*arguments):
    sample_command.main([str(argument) for argument in arguments])


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Config and checkpoint of a generator, as hooks write it: the head's averages, its raw weights, its VAE's name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('run')
    config, vae = folder / 'config.py', folder / 'vae.pth'
    config.write_text(CONFIG.format(root=ROOT, vae=vae, classes=len(NAMES)))
    torch.manual_seed(0)
    model = {**Config.fromfile(config).model, 'backbone_checkpoint': None, '_scope_': 'pvvae_plugin'}
    model = MODELS.build(model)
    torch.save({'state_dict': {f'backbone.{n}': p for n, p in model.backbone.state_dict().items()}}, vae)
    kept = ('head.', 'backbone.latent_')
    averages, raw = (
        {n: p + 0.1 * torch.randn_like(p) for n, p in model.state_dict().items() if n.startswith(kept)}
        for _ in range(2)
    )
    averages['backbone.latent_std'] = torch.full((4,), 3.0)  # so that latents tell in an untrained decoder
    raw = {name: tensor for name, tensor in raw.items() if name.startswith('head.')}
    source = {'path': str(vae), 'sha256': file_sha256(vae)}
    checkpoint = {'state_dict': averages, 'raw_weights': raw, 'backbone_source': source}
    torch.save(checkpoint, folder / 'iter_1.pth')
    yield config, folder / 'iter_1.pth', checkpoint
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def samples(run, tmp_path_factory):
    """Five videos in three batches."""
    out = tmp_path_factory.mktemp('samples')
    sample(*run[:2], '--num', 5, '--num-inference-steps', 2, '--guidance-scale', 2, '--batch-size', 2, '--out-dir', out)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_file_for_each_video_pictures_of_all_and_how_they_were_made(run, samples):
    config, checkpoint, _ = run
    videos = [f'{i:05d}_{NAMES[i]}.webm' for i in range(5)]
    assert list(contents(samples)) == [*videos, *SHEETS]
    for name in videos:
        frames, fps = read_clip(str(samples / name), range)
        assert frames.shape == (9, 32, 32, 3) and fps == 8
    manifest = json.loads((samples / 'samples.json').read_text())
    assert (manifest['config'], manifest['checkpoint']) == (str(config), str(checkpoint))
    assert manifest['classes'] == NAMES
    assert manifest['run']['checkpoint_sha256'] == file_sha256(checkpoint)
    assert manifest['run']['vae_sha256'] == file_sha256(config.with_name('vae.pth'))
    stated = {
        'seed': 0,
        'num_inference_steps': 2,
        'solver': 'euler',
        'guidance_scale': 2.0,
        'num_frames': 9,
        'size': [32, 32],
    }
    assert manifest['run'].items() >= stated.items()
    digests = [(i, i, NAMES[i], file_sha256(samples / name)) for i, name in enumerate(videos)]
    assert [(e['index'], e['label'], e['class'], e['sha256']) for e in manifest['files']] == digests


@pytest.mark.skipif(not dist.is_available(), reason='torch was built without distributed')
def test_two_processes_write_the_bytes_that_one_writes(run, samples, tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', str(SCRIPT)]
    options = [
        '--num-videos',
        '5',
        '--num-inference-steps',
        '2',
        '--guidance-scale',
        '2',
        '--batch-size',
        '2',
        '--out-dir',
        str(tmp_path),
    ]
    command += [*map(str, run[:2]), *options, '--launcher', 'pytorch']
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path) == contents(samples)
    assert done.stdout.count('3/3') == 1  # the progress of process 0, which has two of three batches


def test_other_batches_round_otherwise_and_no_more(run, samples, tmp_path):
    sample(
        *run[:2],
        '--num',
        5,
        '--num-inference-steps',
        2,
        '--guidance-scale',
        2,
        '--batch-size',
        5,
        '--out-dir',
        tmp_path,
    )
    for path in sorted(samples.glob('0*.webm')):
        ours, theirs = (read_clip(str(folder / path.name), range)[0].astype(int) for folder in (samples, tmp_path))
        assert np.abs(ours - theirs).mean() < 0.1  # a codec may make more of a difference of 1


def test_a_killed_run_goes_on_to_the_same_files(run, tmp_path, capsys):
    arguments = [*map(str, run[:2]), '--num', '12', '--num-inference-steps', '40', '--batch-size', '2']
    killed, whole = tmp_path / 'killed', tmp_path / 'whole'
    command = [sys.executable, str(SCRIPT), *arguments, '--out-dir', str(killed)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, 'OMP_NUM_THREADS': '1'}) as process:
        while not list(killed.glob('00003*')):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    there = {path: path.stat().st_mtime_ns for path in killed.glob('0*.webm')}
    assert 3 < len(there) < 12
    for path in there:
        assert len(read_clip(str(path), range)[0]) == 9
    assert json.loads((killed / 'samples.json').read_text())['complete'] is False
    for folder in (killed, whole):
        sample(*arguments, '--out-dir', folder)
    assert contents(killed) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    capsys.readouterr()
    sample(*arguments, '--out-dir', whole)
    assert 'already has these 12 videos' in capsys.readouterr().out


def test_samples_of_another_run_are_not_mixed_in(run, samples):
    before = contents(samples)
    with pytest.raises(ValueError, match=r'another run, with num_inference_steps=2 \(here 3\)'):
        sample(
            *run[:2],
            '--num',
            5,
            '--num-inference-steps',
            3,
            '--guidance-scale',
            2,
            '--batch-size',
            2,
            '--out-dir',
            samples,
        )
    assert contents(samples) == before


def test_raw_weights_are_those_of_a_checkpoint_without_averages(run, samples, tmp_path):
    config, path, checkpoint = run
    state = {**checkpoint['state_dict'], **checkpoint['raw_weights']}
    torch.save({**checkpoint, 'state_dict': state, 'raw_weights': {}}, tmp_path / 'raw.pth')
    options = ['--num', 2, '--num-inference-steps', 2, '--labels', 'orbit', '2']
    sample(config, path, *options, '--raw-weights', '--out-dir', tmp_path / 'a')
    sample(config, tmp_path / 'raw.pth', *options, '--out-dir', tmp_path / 'b')
    sample(config, path, *options, '--out-dir', tmp_path / 'c')
    a, b, c = (contents(tmp_path / name) for name in 'abc')
    videos = ['00000_orbit.webm', f'00001_{NAMES[2]}.webm']
    assert list(a) == [*videos, *SHEETS]
    assert all(a[name] == b[name] != c[name] for name in videos)


def test_images_are_animated_and_videos_continued(run, tmp_path):
    given = tmp_path / 'given'
    given.mkdir()
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(given / 'light.png')
    Image.fromarray(np.full((64, 40, 3), 20, np.uint8)).save(given / 'dark.jpg')
    options = (
        *run[:2],
        '--num',
        3,
        '--num-inference-steps',
        2,
        '--guidance-scale',
        2,
        '--solver',
        'heun',
        *CONDITIONED,
    )
    sample(*options, '--out-dir', tmp_path / 'a', '--first-frames', given)
    manifest = json.loads((tmp_path / 'a' / 'samples.json').read_text())
    sources = [str(given / name) for name in ('dark.jpg', 'light.png', 'dark.jpg')]
    assert [entry['first_frames'] for entry in manifest['files']] == sources
    assert manifest['run']['num_given'] == 1
    assert manifest['run']['first_frames'] == [file_sha256(path) for path in sources[:2]]
    assert marked_columns(tmp_path / 'a' / 'sheet.png') == [False] + 8 * [True]

    write_video(given / 'clip.webm', np.zeros((9, 32, 32, 3), np.uint8), 8)
    sample(*options, '--out-dir', tmp_path / 'b', '--first-frames', given / 'clip.webm')
    assert marked_columns(tmp_path / 'b' / 'sheet.png') == 5 * [False] + 4 * [True]


def marked_columns(path):
    """Which of the nine frames of a sheet's first row are marked as generated."""
    sheet = np.asarray(Image.open(path))
    cell = 96 + 8  # the frame, its border and the gap
    orange = (sheet == np.array(PREDICTED, np.uint8)).all(-1).any(0)
    margin = sheet.shape[1] - 9 * cell
    return [bool(orange[margin + t * cell : margin + t * cell + 3].all()) for t in range(9)]


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (['--first-frames', 'clip.webm'], ValueError, 'condition_prob above 0'),
        (['--first-frames', 'clip.webm', '--num-given', 9, *CONDITIONED], ValueError, 'first_frames has 9 frames'),
        (['--first-frames', 'clip.webm', '--num-given', 3, *CONDITIONED], ValueError, '3 frames does not split'),
        (['--first-frames', 'broken.mp4', *CONDITIONED], ClipError, 'broken.mp4'),
        (['--labels', 'orbit', 'fly'], ValueError, "no class 'fly'.*linear"),
        (['--size', 30, 32], ValueError, 'height 30'),
        (['--num-frames', 8], ValueError, '8 frames'),
        (['--shift', 0], ValueError, 'shift'),
        (['--guidance-interval', 0.5, 1.5], ValueError, 'interval'),
        (['--launcher', 'pytorch'], ValueError, 'torchrun'),
        (['--guidance-scale', 3, '--cfg-options', 'model.class_dropout=0'], ValueError, 'guidance_scale=3'),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(run, options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video('clip.webm', np.zeros((10, 32, 32, 3), np.uint8), 8)
    Path('broken.mp4').write_bytes(b'not a video')
    with pytest.raises(error, match=message):
        sample(*run[:2], '--num', 2, '--out-dir', 'out', *options)
    assert not Path('out').exists()


@pytest.mark.parametrize('options', [['--num', '0'], ['--fps', '60'], ['--num-given', '1'], ['--batch-size', '0']])
def test_arguments_out_of_range_are_refused(run, options, capsys):
    with pytest.raises(SystemExit):
        sample(*run[:2], *options)
    assert options[0] in capsys.readouterr().err

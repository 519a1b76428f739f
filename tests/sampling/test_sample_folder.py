"""A folder of samples holds those of one run, whole, or is refused."""

import json
import os

import numpy as np
import pytest

from pvvae_plugin.files import file_sha256
from pvvae_plugin.sampling import SampleFolder

RUN = {'seed': 0, 'size': (16, 16)}
CLIP = np.zeros((2, 16, 16, 3), np.uint8)


def make(root, run=None, names=('a b/c', None)):
    entries = [{'index': i, 'label': i, 'class': name} for i, name in enumerate(names)]
    return SampleFolder(root, run or RUN, {'config': 'x.py'}, entries, shown=[1])


def visible(root):
    return sorted(path.name for path in root.iterdir() if not path.name.startswith('.'))


def test_a_run_goes_on_where_it_stopped(tmp_path):
    root = tmp_path / 'deep' / 'out'
    folder = make(root)
    assert folder.check() is False
    folder.start()
    folder.add(1, CLIP + 9, fps=8)
    assert json.loads((root / 'samples.json').read_text())['complete'] is False

    again = make(root)
    assert again.check() is False
    again.start()
    assert [again.is_done(i) for i in (0, 1)] == [False, True]
    with pytest.raises(RuntimeError, match='1 videos are missing from'):
        again.shown_clips()
    again.add(0, CLIP, fps=8)
    shown = again.shown_clips()
    assert list(shown) == [1] and (shown[1] == 9).all()  # as it was, not as a codec left it
    again.finish()
    assert visible(root) == ['00000_a-b-c.webm', '00001_class1.webm', 'samples.json']
    assert not (root / '.shown').exists()
    manifest = json.loads((root / 'samples.json').read_text())
    assert manifest['complete'] and manifest['config'] == 'x.py' and manifest['run'] == {'seed': 0, 'size': [16, 16]}
    digests = {entry['file']: entry['sha256'] for entry in manifest['files']}
    assert digests == {name: file_sha256(root / name) for name in visible(root)[:2]}
    assert make(root).check() is True


def test_what_a_killed_process_leaves_is_cleared_away(tmp_path):
    (tmp_path / '.unfinished-xyz').mkdir()
    (tmp_path / '.unfinished-xyz' / '00000.webm').write_bytes(b'half')
    folder = make(tmp_path)
    assert folder.check() is False
    folder.start()
    assert os.listdir(tmp_path) == ['samples.json']


def test_samples_of_two_runs_are_not_mixed(tmp_path):
    make(tmp_path).start()
    with pytest.raises(ValueError, match=r'another run, with seed=0 \(here 1\)'):
        make(tmp_path, {**RUN, 'seed': 1}).check()
    (tmp_path / 'samples.json').write_text('{}')
    with pytest.raises(ValueError, match='samples.json cannot be read'):
        make(tmp_path).check()
    (tmp_path / 'samples.json').rename(tmp_path / 'mine.txt')
    with pytest.raises(ValueError, match=r'not empty \(mine.txt\)'):
        make(tmp_path).check()
    with pytest.raises(ValueError, match='mine.txt is a file'):
        make(tmp_path / 'mine.txt').check()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match='is not writable'):
        make(tmp_path / 'new').check()


def finished(root):
    folder = make(root)
    folder.start()
    for index in (0, 1):
        folder.add(index, CLIP, fps=8)
    folder.finish()


def test_a_video_that_is_missing_from_a_finished_folder_is_made_again(tmp_path):
    finished(tmp_path)
    (tmp_path / '00000_a-b-c.webm').unlink()
    folder = make(tmp_path)
    assert folder.check() is False
    assert not folder.is_done(0)


def test_a_video_that_was_replaced_in_a_finished_folder_is_named(tmp_path):
    finished(tmp_path)
    (tmp_path / '00001_class1.webm').write_bytes(b'another video')
    with pytest.raises(ValueError, match='00001_class1.webm .*changed.*delete it'):
        make(tmp_path).check()

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pvvae_plugin.evaluation.weights import PUBLISHED, check_shapes, find_weights, identify_weights, load_tensors


class Harmful:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv('PVVAE_WEIGHTS', raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_file_as_given_comes_before_the_folder(monkeypatch, tmp_path):
    folder = tmp_path / 'shared'
    folder.mkdir()
    (folder / 'i3d.pt').write_bytes(b'there')
    monkeypatch.setenv('PVVAE_WEIGHTS', str(folder))
    assert find_weights('weights/i3d.pt', []) == folder / 'i3d.pt'
    (tmp_path / 'weights').mkdir()
    (tmp_path / 'weights' / 'i3d.pt').write_bytes(b'here')
    assert find_weights('weights/i3d.pt', []).read_bytes() == b'here'


def test_a_folder_is_not_a_file_and_the_other_way_round(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    assert find_weights('folder', [], folder=True) == Path('folder')
    with pytest.raises(FileNotFoundError, match='file folder not found'):
        find_weights('folder', [])
    with pytest.raises(FileNotFoundError, match='folder file not found'):
        find_weights('file', [], folder=True)


def test_what_is_said_where_there_is_none(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        find_weights('weights/i3d_torchscript.pt', ['i3d_torchscript.pt'])
    message = str(caught.value)
    assert str(tmp_path / 'weights' / 'i3d_torchscript.pt') in message
    assert 'StyleGAN-V, https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1' in message
    assert 'extractor.weights' in message
    assert 'PVVAE_WEIGHTS is not set' in message
    assert 'Nothing is downloaded' in message

    monkeypatch.setenv('PVVAE_WEIGHTS', str(tmp_path / 'elsewhere'))
    with pytest.raises(FileNotFoundError) as caught:
        find_weights('weights/mean2.npz', ['mean2.npz'], option='extractor.mean')
    message = str(caught.value)
    assert str(tmp_path / 'elsewhere' / 'mean2.npz') in message
    assert 'TGANv2' in message
    assert 'extractor.mean' in message


@pytest.mark.parametrize('exists', [True, False])
def test_the_i3d_that_is_not_the_one_of_fvd(tmp_path, exists):
    if exists:
        (tmp_path / 'rgb_imagenet.pt').touch()
    with pytest.raises(ValueError, match='piergiaj'):
        find_weights(tmp_path / 'rgb_imagenet.pt', [])


def test_published_digests_are_whole():
    for file in PUBLISHED.values():
        assert file.sha256 is None or (len(file.sha256) == 64 and int(file.sha256, 16))


def test_which_file_it_is(tmp_path, log_lines, monkeypatch):
    path = tmp_path / 'some.pt'
    path.write_bytes(b'weights')
    digest = hashlib.sha256(b'weights').hexdigest()
    assert identify_weights(path) == {'file': 'some.pt', 'sha256': digest, 'known_as': None}
    assert digest in log_lines[-1]
    assert 'not a known file' in log_lines[-1]
    assert identify_weights(path, digest.upper())['sha256'] == digest
    with pytest.raises(ValueError, match=f"'{digest}'.*'{'0' * 64}'"):
        identify_weights(path, '0' * 64)


def test_no_code_of_a_file_runs(tmp_path):
    sign, path = tmp_path / 'ran', tmp_path / 'weights.pt'
    torch.save({'weight': Harmful(sign)}, path)
    with pytest.raises(ValueError, match='cannot be loaded safely'):
        load_tensors(path)
    path.write_bytes(pickle.dumps(Harmful(sign), protocol=2))
    with pytest.raises(ValueError, match='cannot be loaded safely'):
        load_tensors(path)
    assert not sign.exists()
    pickle.loads(path.read_bytes())
    assert sign.exists()  # it would have


@pytest.mark.parametrize('name', ['a.pt', 'a.pth', 'a.safetensors'])
def test_damaged_files(tmp_path, name):
    path = tmp_path / name
    tensors = {'weight': torch.arange(1000.0)}
    save_file(tensors, path) if name.endswith('safetensors') else torch.save(tensors, path)
    assert torch.equal(load_tensors(path)['weight'], tensors['weight'])
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=name):
        load_tensors(path)
    path.write_bytes(b'<html>not found</html>')
    with pytest.raises(ValueError, match=name):
        load_tensors(path)


def test_a_checkpoint_is_no_state_dict(tmp_path):
    torch.save({'state_dict': {'weight': torch.zeros(1)}}, tmp_path / 'checkpoint.pt')
    with pytest.raises(ValueError, match='is not a state dict'):
        load_tensors(tmp_path / 'checkpoint.pt')


def test_wrong_names_and_shapes_are_told():
    expected = {'a': (1, 2), 'b': (3,), 'c': (4,)}
    check_shapes(Path('file'), expected, {**expected, 'd': (5,)})
    with pytest.raises(ValueError, match=r'file .*1 missing \(c\); 1 of another shape \(a \(2, 1\) instead'):
        check_shapes(Path('file'), expected, {'a': torch.Size([2, 1]), 'b': (3,)})
    with pytest.raises(ValueError, match=r'1 unknown \(d\)'):
        check_shapes(Path('file'), expected, expected, ['d'])

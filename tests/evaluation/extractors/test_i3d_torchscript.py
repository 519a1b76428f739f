import hashlib

import pytest
import torch
from torch import Tensor, nn

from pvvae_plugin.evaluation.extractors import I3DTorchScript, build_extractor
from pvvae_plugin.evaluation.protocols import PROTOCOLS


class Program(nn.Module):
    """Program with StyleGAN-V's interface. Feature i is twice the i-th red value in the last frame's first two rows."""

    def __init__(self, width: int = 400) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        assert not rescale and not resize and return_features
        assert x.shape[3] == 224 and x.shape[4] == 224
        return 2 * x[:, 0, -1].flatten(1)[:, : self.width]


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp('programs')

    def save(width):
        path = folder / f'{width}.pt'
        torch.jit.script(Program(width)).save(str(path))
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    return {width: save(width) for width in (400, 399)}


def test_another_program_is_not_run_unless_its_digest_is_stated(saved, monkeypatch):
    path, digest = saved[400]
    loaded = []
    monkeypatch.setattr(torch.jit, 'load', lambda *args, **kwargs: loaded.append(args))
    with pytest.raises(ValueError, match=f'would run its code.*{digest}.*bec6519f.*extractor.sha256'):
        I3DTorchScript(path)
    with pytest.raises(ValueError, match='sha256'):
        I3DTorchScript(path, sha256='0' * 64)
    assert not loaded


def test_features(saved):
    path, digest = saved[400]
    extractor = I3DTorchScript(path, sha256=digest)
    video = torch.rand(2, 3, 9, 224, 224) * 2 - 1
    assert torch.equal(extractor(video), 2 * video[:, 0, -1].flatten(1)[:, :400])
    assert extractor.record()['weights'] == {'file': '400.pt', 'sha256': digest, 'known_as': None}
    with pytest.raises(ValueError, match='at least 9'):
        extractor(video[:, :, :8])


def test_the_protocol_is_followed(saved):
    path, digest = saved[400]
    config = {'type': 'I3DTorchScript', 'weights': str(path), 'sha256': digest}
    extractor = build_extractor(config, PROTOCOLS['videogpt'])
    video = torch.full((1, 3, 16, 4, 8), -1.0)
    video[..., 2:6] = 1  # the square in the middle
    assert extractor(video)[0, 112] == pytest.approx(2 * 0.5)
    assert build_extractor(config, PROTOCOLS['stylegan-v'])(video)[0, 0] == pytest.approx(-2)
    assert extractor.record()['preprocessing']['value_range'] == [-0.5, 0.5]


def test_another_network(saved):
    path, digest = saved[399]
    extractor = I3DTorchScript(path, sha256=digest)
    with pytest.raises(ValueError, match=r'399.pt returns features of shape \(1, 399\)'):
        extractor(torch.zeros(1, 3, 9, 8, 8))


def test_no_torchscript(tmp_path, monkeypatch):
    path = tmp_path / 'i3d_torchscript.pt'
    torch.save({'weight': torch.zeros(1)}, path)
    with pytest.raises(ValueError, match='cannot be loaded as TorchScript'):
        I3DTorchScript(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.delenv('PVVAE_WEIGHTS', raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='dropbox'):
        I3DTorchScript()

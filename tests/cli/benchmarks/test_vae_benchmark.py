"""The benchmark of the VAE: it counts the operations that touch data, and its numbers add up."""

import json

import pytest
import torch
from torch import nn

from pvvae_plugin.cli.benchmarks import vae as tool
from pvvae_plugin.models.vae.layers import CausalConv3d, Upsample


def ones(layer):
    """Weights of 1 and no bias: of an input of ones, outputs then sum to the number of multiplications."""
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, 0.0 if name.endswith('bias') else 1.0)
    return layer


@pytest.mark.parametrize(
    ('kernel', 'stride'),
    [
        ((3, 3, 3), (1, 1, 1)),
        ((3, 3, 3), (2, 2, 2)),
        ((1, 3, 3), (1, 2, 2)),
        ((3, 1, 1), (1, 1, 1)),
        ((1, 1, 1), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize('frames', [1, 5])
@torch.no_grad()
def test_operations_of_a_convolution(kernel, stride, frames):
    layer = ones(CausalConv3d(2, 3, kernel, stride))
    x = torch.ones(2, 2, frames, 6, 8)
    assert tool.count_flop(layer, lambda: layer(x)) == 2 * layer(x).sum()


@pytest.mark.parametrize('stride', [(1, 2), (2, 2), (2, 1)])
@torch.no_grad()
def test_operations_of_an_upsampling(stride):
    layer, x = ones(Upsample(2, 3, stride)), torch.ones(2, 2, 3, 4, 6)
    frames, expected = x, 0.0
    if stride[0] == 2:
        expected += layer.time_conv(x).sum()
        frames = torch.ones(2, 2, 5, 4, 6)
    if stride[1] == 2:
        # The transposed convolution: of ones with ones, each output is its number of taps.
        taps = nn.functional.conv_transpose2d(torch.ones(1, 1, 4, 6), torch.ones(1, 1, 4, 4), stride=2, padding=1)
        expected += 2 * 5 * 2 * 3 * taps.sum() if stride[0] == 2 else 2 * 3 * 2 * 3 * taps.sum()
    else:
        expected += layer.conv(frames).sum()
    assert tool.count_flop(layer, lambda: layer(x)) == 2 * expected


def test_operations_of_wans_layers_chunk_by_chunk():
    wan = pytest.importorskip('diffusers.models.autoencoders.autoencoder_kl_wan')
    convolution = ones(wan.WanCausalConv3d(2, 3, 3, padding=1))
    video = torch.ones(1, 2, 5, 4, 6)

    def chunks():
        convolution(video[:, :, :1])
        convolution(video[:, :, 1:], video[:, :, :1])

    assert tool.count_flop(convolution, chunks) == 2 * convolution(video).sum()
    down = ones(wan.WanResample(2, 'downsample3d'))

    def strided():
        cache = [None]
        return [down(part, cache, [0]) for part in video.split([1, 4], dim=2)]

    first, second = strided()
    in_space = torch.cat([first, down.resample(torch.ones(4, 2, 4, 6)).unsqueeze(2).view(1, 2, 4, 2, 3)], dim=2)
    in_time = down.time_conv(torch.ones(1, 2, 5, 2, 3))
    assert second.shape == in_time.shape
    assert tool.count_flop(down, strided) == 2 * (in_space.sum() + in_time.sum())


def test_numbers_add_up(tmp_path, capsys, monkeypatch):
    pytest.importorskip('diffusers')
    ours = {'encoder_widths': (8,) * 5, 'decoder_widths': (8,) * 5, 'latent_channels': 4}
    monkeypatch.setitem(tool.SIZES, 'small', (ours, {'base_dim': 8, 'decoder_base_dim': 8, 'z_dim': 4}))
    tool.main(['--batch', '2', '--repeats', '3', '--side', '32', '--frames', '5', '--json', str(tmp_path / 'vae.json')])
    report = json.loads((tmp_path / 'vae.json').read_text())
    mine, wan = (report['models'][name] for name in tool.NAMES)
    for which in tool.PASSES:
        assert 0 < mine['own_convolutions'][which] < 1.5
        quotient = wan['seconds'][which]['median'] / mine['seconds'][which]['median']
        assert report['ratios'][which]['per clip'] == pytest.approx(quotient)
        per_flop = quotient * mine['flop'][which] / wan['flop'][which]
        assert report['ratios'][which]['per FLOP'] == pytest.approx(per_flop)
    printed = capsys.readouterr().out
    assert report['command'] in printed and torch.__version__ in printed
    assert f'| both | | | | | | | | {report["ratios"]["both"]["per clip"]:.2f}x' in printed


def test_memory_is_counted_at_any_size(capsys):
    pytest.importorskip('diffusers')
    tool.main(['--size', 'paper', '--batch', '1', '--frames', '5', '--side', '512', '--count-memory'])
    lines = [line.split('|')[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    ours, wan = ([float(cell) for cell in line[1:]] for line in lines[1:3])
    assert ours[0] == pytest.approx(4 * 651e6 / 2**30, rel=0.01)
    for row in (ours, wan):
        assert row[3] == pytest.approx(row[0] + max(row[1:3]), abs=0.011)
    assert ours[1] > 4 * 2 * 64 * 4 * 512 * 512 / 2**30  # two tensors of the first level, of one chunk


def test_peak_of_a_call():
    def call():
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1
        del a
        return torch.cat([b, b])

    assert tool.peak_bytes(call, 'cpu') == 4000 + 8000


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--batch', '0'], '--batch must be a positive integer, got 0'),
        (['--frames', '16'], '--frames must be 1 + 4 k, got 16'),
        (['--side', '50'], '--side must be divisible by 16, got 50'),
        (['--json', 'no/such/folder/x.json'], 'the folder no/such/folder does not exist'),
        (['--json', '/'], '--json / cannot be written: Is a directory'),
    ],
)
def test_errors(capsys, arguments, message):
    with pytest.raises(SystemExit):
        tool.parse_args(arguments)
    assert message in capsys.readouterr().err

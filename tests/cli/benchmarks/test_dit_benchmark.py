"""The benchmark of LatentDiT: its numbers add up, and it says what it lacks before it measures."""

import json

import pytest
import torch

from pvvae_plugin.cli.benchmarks import dit as tool

TOKENS, CHANNELS = 5 * 16 * 16, 64


def forward_flop(depth, width):
    """Of LatentDiT for one clip by hand, a multiply-add counting 2."""
    linear = TOKENS * (3 + 1 + 4 + 4) * width**2 + 6 * width**2  # qkv, proj, up, down; modulation, once for the clip
    attention = TOKENS * 2 * width * (16 * 16 + 5) / 2  # logits and sums over places in one block, frames in the next
    ends = TOKENS * 2 * CHANNELS * width + (256 * width + width**2) + 2 * width**2  # first and last; time; modulation
    return 2 * (depth * (linear + attention) + ends)


def test_numbers_add_up(tmp_path, capsys, monkeypatch):
    pytest.importorskip('diffusers')
    monkeypatch.setitem(tool.SIZES, 'tiny', (2, 32, 2))
    tool.main(['--batch', '2', '--repeats', '3', '--json', str(tmp_path / 'dit.json')])
    report = json.loads((tmp_path / 'dit.json').read_text())
    ours, theirs = report['models']['LatentDiT'], report['models']['Latte']

    forward = forward_flop(2, 32)
    assert ours['flop']['forward pass'] == 2 * forward
    # backward: twice the operations, but no gradient of latents and of the times' waves
    assert ours['flop']['training step'] == 2 * (3 * forward - 2 * (TOKENS * CHANNELS * 32 + 256 * 32))
    for which in ('training step', 'forward pass'):
        assert 0.9 < theirs['flop'][which] / ours['flop'][which] < 1.1
        seconds = [model['seconds'][which] for model in (ours, theirs)]
        assert all(0 < s['min'] <= s['median'] <= s['max'] for s in seconds)
        quotient = seconds[1]['median'] / seconds[0]['median']
        found = report['ratios'][which]
        assert found['per step'] == pytest.approx(quotient)
        per_flop = quotient * ours['flop'][which] / theirs['flop'][which]
        assert found['per FLOP'] == pytest.approx(per_flop)
    with torch.device('meta'):
        model = tool.LatentDiT(CHANNELS, 101, depth=2, hidden_size=32, num_heads=2)
    assert ours['parameters'] == sum(p.numel() for p in model.parameters())
    assert round(report['parameters_of_XL'] / 1e6, 1) == 673.9

    printed = capsys.readouterr().out
    assert report['command'] in printed and report['date'] in printed and torch.__version__ in printed
    row = next(line for line in printed.splitlines() if line.startswith('| training step, LatentDiT'))
    assert f'{report["ratios"]["training step"]["per step"]:.2f}x' in row
    assert f'{1e3 * ours["seconds"]["training step"]["median"]:.1f}' in row


def test_what_autograd_keeps():
    weights = torch.nn.Linear(8, 4)
    x = torch.randn(16, 8)
    kept = tool.memory(lambda: weights(x).sigmoid().sum().backward(), weights, 'cpu')
    assert kept == 4 * (16 * 8 + 16 * 4)  # the input, for the weights' gradient, and the sigmoid's result


def test_both_models_answer_in_the_shape_of_the_latents_and_ours_alone_sees_the_class(monkeypatch):
    pytest.importorskip('diffusers')
    monkeypatch.setitem(tool.SIZES, 'tiny', (2, 32, 2))
    latents, times, labels = tool.inputs(2, 'cpu')
    for name in ('LatentDiT', 'Latte'):
        model = tool.build(name, 'tiny', 'cpu')
        tool.draw_weights(model)
        with torch.no_grad():
            out = model(latents, times, labels)
            assert out.shape == latents.shape and out.std() > 0
            assert not torch.equal(model(latents, times / 2, labels), out)
            assert torch.equal(model(latents, times, labels + 1), out) == (name == 'Latte')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--batch', '0'], '--batch must be a positive integer, got 0'),
        (['--repeats', '-1'], '--repeats must be a positive integer, got -1'),
        (['--size', 'huge'], "invalid choice: 'huge'"),
        (['--json', 'nowhere/dit.json'], 'the folder nowhere does not exist'),
    ],
)
def test_errors(capsys, arguments, message):
    with pytest.raises(SystemExit):
        tool.main(arguments)
    assert message in capsys.readouterr().err


def test_missing_gpu_and_missing_package(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit):
        tool.main(['--device', 'cuda'])
    assert 'torch finds no GPU; use --device cpu' in capsys.readouterr().err
    monkeypatch.setattr(tool.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit):
        tool.main([])
    assert 'pip install -e ".[benchmarks]"' in capsys.readouterr().err

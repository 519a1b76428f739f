"""The benchmark of a training step: its rows are what they are called, and its numbers add up."""

import json

import pytest
import torch

from pvvae_plugin.cli.benchmarks import train_step


@pytest.fixture
def tool(monkeypatch):
    widths = {'encoder_widths': (8, 8, 16, 16, 16), 'decoder_widths': (8, 8, 16, 16, 16), 'latent_channels': 4}
    monkeypatch.setitem(train_step.SIZES, 'small', widths)
    return train_step


@pytest.mark.long
def test_numbers_add_up(tool, tmp_path, capsys, monkeypatch):
    encoded = []
    encode = tool.PredictiveVAE.encode
    monkeypatch.setattr(
        tool.PredictiveVAE, 'encode', lambda self, x: encoded.append(x[:, 0, :, 0, 0].numel()) or encode(self, x)
    )
    tool.main(['--batch', '3', '--repeats', '2', '--json', str(tmp_path / 'step.json')])
    report = json.loads((tmp_path / 'step.json').read_text())
    rows = report['rows']
    assert list(rows) == [tool.NONE, tool.DROP, tool.LONGEST, tool.SAVING]
    assert 0 < rows[tool.DROP]['frames encoded'] <= rows[tool.LONGEST]['frames encoded'] <= 1
    assert rows[tool.NONE]['frames encoded'] == 1
    # 4 turns with 2 not counted, then each row once more for its memory
    expected = 3 * 17 * (2 * 5 + (rows[tool.DROP]['frames encoded'] + rows[tool.LONGEST]['frames encoded']) * 2)
    assert expected <= sum(encoded) < 4 * 5 * 3 * 17  # if all passed whole
    assert rows[tool.SAVING]['bytes'] < 0.8 * rows[tool.NONE]['bytes']
    for row in rows.values():
        quotient = row['seconds']['median'] / rows[tool.NONE]['seconds']['median']
        assert row['of no dropping'] == pytest.approx(quotient)
    assert report['command'] in capsys.readouterr().out


def test_steps_differ_in_nothing_but_their_name(tool):
    """Checkpointed or encoded up to the longest, gradients are the same."""
    torch.manual_seed(0)
    vae = tool.PredictiveVAE(**tool.SIZES['small']).train()
    video, gradients = torch.rand(3, 3, 9, 32, 32) * 2 - 1, []
    for compiled, checkpointed in ((False, False), (True, False), (False, True)):
        vae.encodes_longest = compiled
        vae.encoder.gradient_checkpointing = vae.decoder.gradient_checkpointing = checkpointed
        torch.manual_seed(1)  # of the posterior's noise
        tool.step(vae, video, torch.tensor([3, 1, 2]), autocast=False)
        gradients.append([parameter.grad.clone() for parameter in vae.parameters()])
    for others in gradients[1:]:
        for ours, theirs in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--repeats', '0'], '--repeats must be a positive integer, got 0'),
        (['--frames', '4'], '--frames must be 1 + 4 k, got 4'),
        (['--side', '20'], '--side must be divisible by 16, got 20'),
    ],
)
def test_errors(tool, capsys, arguments, message):
    with pytest.raises(SystemExit):
        tool.parse_args(arguments)
    assert message in capsys.readouterr().err

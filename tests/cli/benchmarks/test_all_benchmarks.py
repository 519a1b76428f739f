"""All benchmarks in one call: one that fails or hangs costs its own rows, and the table says so."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pvvae_plugin.cli.benchmarks import BENCHMARKS
from pvvae_plugin.cli.benchmarks import all as tool


def test_one_table_of_what_ran_and_what_did_not(tmp_path, monkeypatch, capsys):
    (tmp_path / 'good.py').write_text(
        'import pathlib, sys\nout = sys.argv[sys.argv.index("--json") + 1]\n'
        'pathlib.Path(out).write_text(\'{"rows": [{"x": 1}, {"x": 1.25}]}\')\n'
    )
    (tmp_path / 'bad.py').write_text('import sys\nsys.exit("error: no diffusers")\n')
    (tmp_path / 'slow.py').write_text('import time\ntime.sleep(60)\n')
    rows = [tool.at_least('more', 1.2, 'rows', '-1', 'x'), tool.at_most('less', 1.2, 'rows', '-1', 'x')]
    runs = [tool.Run(name, name, '', '', rows) for name in ('good', 'bad', 'slow', 'late')]
    monkeypatch.setattr(tool, 'benchmark_command', lambda name: [sys.executable, str(tmp_path / f'{name}.py')])
    monkeypatch.setattr(tool, 'RUNS', runs)
    with pytest.raises(SystemExit) as ended:
        tool.main(['--tiny', '--out', str(tmp_path / 'out'), '--seconds', '1.5'])
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert '| more | 1.250 | >= 1.2 | toy size |' in printed
    assert [row.is_met(1.25) for row in rows] == [True, False]
    assert '| more | | >= 1.2 | failed: error: no diffusers |' in printed
    assert '| more | | >= 1.2 | stopped after 1 s |' in printed
    assert '| more | | >= 1.2 | not run: no time left |' in printed
    assert json.loads((tmp_path / 'out' / 'good.json').read_text())['rows'][1]['x'] == 1.25


@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_takes_its_processes_along(tmp_path, how):
    """And those that they started."""
    marker = f'marker-{tmp_path.name}'
    (tmp_path / 'slow.py').write_text(
        f'import subprocess, sys\nprint("started", flush=True)\n'
        f'subprocess.run([sys.executable, "-c", "import time; time.sleep(60)", "{marker}"])\n'
    )
    program = (
        'import sys\nfrom pvvae_plugin.cli.benchmarks import all as tool\n'
        f'tool.benchmark_command = lambda name: [sys.executable, {str(tmp_path / "slow.py")!r}]\n'
        'tool.RUNS = [tool.Run("slow", "slow", "", "", [])]\n'
        f'tool.main(["--tiny", "--out", {str(tmp_path / "out")!r}])\n'
    )
    process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def running():
        return [p for p in Path('/proc').glob('[0-9]*/cmdline') if marker in _read(p)]

    deadline = time.monotonic() + 60
    while not running() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running()
    process.send_signal(how)
    assert process.wait(30) != 0
    assert not running()


def _read(path):
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ''


def test_benchmarks_know_the_arguments_they_are_given(monkeypatch, tmp_path):
    """Those for a GPU, too, which nobody runs here."""
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: find_spec('json' if name == 'diffusers' else name))
    for run in tool.RUNS:
        module = importlib.import_module(f'pvvae_plugin.cli.benchmarks.{BENCHMARKS[run.benchmark].module}')
        for arguments in (run.arguments, run.tiny):
            assert module.parse_args([*arguments.split(), '--json', str(tmp_path / 'x.json')])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--out', 'x'], 'use either --device cuda, or --tiny on a CPU'),
        (['--device', 'cuda', '--tiny', '--out', 'x'], 'use either --device cuda, or --tiny on a CPU'),
        (['--tiny', '--out', 'x', '--seconds', '0'], '--seconds must be positive, got 0'),
        (['--tiny'], 'required: --out'),
    ],
)
def test_errors(capsys, arguments, message):
    with pytest.raises(SystemExit):
        tool.parse_args(arguments)
    assert message in capsys.readouterr().err

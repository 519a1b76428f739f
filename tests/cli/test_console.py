"""The console command: what it lists, what it does not know, and that each script in tools/ is one of its commands."""

from __future__ import annotations

import ast
import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from commands import pvvae

from pvvae_plugin.cli.benchmarks import BENCHMARKS
from pvvae_plugin.cli.console import COMMON, OTHERS, main

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {name: command.module for name, command in (COMMON | OTHERS).items() if name != 'benchmark'}
COMMANDS |= {f'benchmark {name}': f'benchmarks.{command.module}' for name, command in BENCHMARKS.items()}
# The launcher sets its signal handlers before it imports torch, so it imports nothing of ours; the study is a package
# of its own.
SCRIPTS = [
    path for path in sorted((ROOT / 'tools').rglob('*.py')) if path.name != 'launch.py' and path.parent.name != 'study'
]


def test_help_lists_every_command_in_two_groups():
    text = pvvae('--help')
    common, others = text.split('more commands:')
    for group, listed in ((COMMON, common), (OTHERS, others)):
        for name, command in group.items():
            assert f'  {name} ' in listed and command.help in listed
    assert max(map(len, text.splitlines())) <= 120
    assert all(name in pvvae('benchmark', '--help') for name in BENCHMARKS)


@pytest.mark.parametrize(
    ('arguments', 'code', 'said'),
    [
        ([], 2, 'usage: pvvae COMMAND'),
        (['trian'], 2, "pvvae has no command 'trian'; did you mean 'train'?"),
        (['extract_latents'], 2, "did you mean 'extract-latents'?"),
        (['evaluate_videos'], 2, "did you mean 'evaluate'?"),
        (['?'], 2, 'pvvae has no command \'?\'; "pvvae --help" lists all commands'),
        (['benchmark'], 2, 'usage: pvvae benchmark COMMAND'),
        (['benchmark', 'vea'], 2, "did you mean 'vae'?"),
    ],
)
def test_what_is_no_command(arguments, code, said, capsys):
    assert main(arguments) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_describes_itself_under_its_own_name(name, capsys):
    module = importlib.import_module(f'pvvae_plugin.cli.{COMMANDS[name]}')
    argv = sys.argv
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), '--help'])
    text = capsys.readouterr().out
    assert not ended.value.code and text.startswith(f'usage: pvvae {name} [-h]')
    assert module.__doc__.splitlines()[0] in text and f'pvvae {name}' in module.__doc__
    assert sys.argv is argv


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_is_a_command_and_nothing_else(script, monkeypatch, capsys):
    tree = ast.parse(script.read_text())
    (module,) = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert len(tree.body) == 4  # docstring, two imports, the call
    assert module.removeprefix('pvvae_plugin.cli.') in COMMANDS.values()
    monkeypatch.setattr(sys, 'argv', [str(script), '--help'])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name='__main__')
    assert not ended.value.code and capsys.readouterr().out.startswith(f'usage: {script.name} ')


def test_exit_codes_reach_the_shell():
    done = subprocess.run([sys.executable, 'tools/analysis/report.py', 'none.json'], cwd=ROOT, capture_output=True)
    assert done.returncode == 1 and b'Traceback' not in done.stderr

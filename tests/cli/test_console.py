"""The console command: what it lists, what it does not know, and that each script in tools/ is one of its commands."""

from __future__ import annotations

import ast
import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import pvvae

from pvvae_plugin.cli import console
from pvvae_plugin.cli.benchmarks import BENCHMARKS
from pvvae_plugin.cli.console import COMMON, OTHERS, main, start
from pvvae_plugin.cli.launching import STARTED_WITH, start_processes
from pvvae_plugin.temporal import frames_to_groups

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
    assert not ended.value.code and text.startswith(f'usage: pvvae {name} [-h] [--debug]')
    assert module.__doc__.splitlines()[0] in text and f'pvvae {name}' in module.__doc__
    assert sys.argv is argv


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_is_a_command_and_nothing_else(script, monkeypatch, capsys):
    tree = ast.parse(script.read_text())
    first, second = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    module = second if first == 'pvvae_plugin.cli.console' else first
    assert ast.unparse(tree.body[-1].body) == 'sys.exit(start(main))'
    assert len(tree.body) == 5  # docstring, three imports, the call
    assert module.removeprefix('pvvae_plugin.cli.') in COMMANDS.values()
    monkeypatch.setattr(sys, 'argv', [str(script), '--help'])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name='__main__')
    assert not ended.value.code and capsys.readouterr().out.startswith(f'usage: {script.name} ')


def test_exit_codes_reach_the_shell():
    done = subprocess.run([sys.executable, 'tools/analysis/report.py', 'none.json'], cwd=ROOT, capture_output=True)
    assert done.returncode == 1 and b'Traceback' not in done.stderr


MISTAKE = ('--cfg-options', 'train_dataloader.dataset.size=30', 'train_dataloader.num_workers=0')


def test_a_mistake_is_told_in_one_line_and_not_below_a_dump(tmp_path, capsys):
    assert main(['train', 'pvvae_demo', '--work-dir', str(tmp_path), *MISTAKE]) == 1
    out, err = capsys.readouterr()
    assert err.startswith('error: clips of train_dataloader do not fit the backbone') and err.count('\n') == 1
    assert out.count('\n') < 3, out
    (log,) = tmp_path.rglob('*.log')
    assert all(listing in log.read_text() for listing in ('System environment', 'Config:', 'Hooks will be executed'))


def test_debug_shows_the_traceback_of_a_mistake():
    for arguments in (['--debug', 'train', 'no_such'], ['train', 'no_such', '--debug']):
        with pytest.raises(FileNotFoundError, match='no_such'):
            main(arguments)


@pytest.mark.parametrize('bug', [lambda _: {}['key'], lambda _: int('x'), lambda _: torch.zeros(2) @ torch.zeros(3)])
def test_unexpected_errors_keep_their_traceback(bug):
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        start(bug, [])


class Frames(torch.utils.data.Dataset):
    """One item, of a number of frames that is wrong if it is 16."""

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return frames_to_groups(self.frames, 4) if self.frames else [][index]


def test_mistakes_in_data_workers_are_told_without_their_traceback(capsys):
    assert start(lambda _: list(torch.utils.data.DataLoader(Frames(16), num_workers=1)), []) == 1
    assert capsys.readouterr().err.startswith('error: a clip of 16 frames does not split')
    with pytest.raises(IndexError):
        start(lambda _: list(torch.utils.data.DataLoader(Frames(0), num_workers=1)), [])


def test_processes_leave_the_report_to_the_first(monkeypatch, capsys):
    """A launcher ends the others while they wait. Only if the first does not fail, another one reports."""
    waits = []
    monkeypatch.setattr(console.time, 'sleep', waits.append)
    for rank in ('0', '1'):
        monkeypatch.setenv('RANK', rank)
        assert main(['train', 'no_such']) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith('error: no config') and second == f'{first} (process 1)'
    assert waits == [console.WAIT_FOR_FIRST]


def test_mistakes_in_a_config_file_name_its_line(tmp_path, capsys):
    config = tmp_path / 'mine.py'
    for text, said in [
        ('a = dict(b=ten)', f"error: {config} cannot be read: NameError: name 'ten' is not defined"),
        ('a = dict(b=1', f"error: {config} cannot be read: SyntaxError: '(' was never closed"),
    ]:
        config.write_text(f'\n{text}\n')
        assert main(['train', str(config)]) == 1
        err = capsys.readouterr().err
        assert err.startswith(said) and err.rstrip().endswith(f'line 2: {text})') and err.count('\n') == 1


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_commands_that_no_launcher_started_are_told_so(launcher, monkeypatch):
    for name in STARTED_WITH[launcher]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)  # MMEngine would look for its variables there
    with pytest.raises(ValueError, match=f'--launcher {launcher} needs processes started by'):
        start_processes(launcher)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['train', 'pvvae_demo', '--work_dir', 'x'], 'unrecognized arguments: --work_dir x; did you mean --work-dir?'),
        (['test', 'pvvae_demo', 'x.pth', '--show_dir=x'], 'did you mean --show-dir?'),
        (['sample', 'dit_demo', 'x.pth', '--num_inference_steps', '3'], 'did you mean --num-inference-steps?'),
        (['benchmark', 'vae', '--jsn', 'x'], 'did you mean --json?'),
        (['export', 'pvvae_demo', 'x', 'y', 'z'], 'unrecognized arguments: z\n'),
    ],
)
def test_unknown_options_are_answered_with_a_similar_one(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('pvvae_folder', 'did you mean pvvae_folder64.py'),
        ('configs/pvvae_dmeo.py', 'did you mean pvvae_demo.py'),
        ('elsewhere/dit_demo.py', 'did you mean dit_demo.py'),
        ('nonsense', 'pvvae_plugin; docs/configs.md describes all of them, they are in '),
    ],
)
def test_unknown_configs_are_answered_with_a_similar_one(name, said, capsys):
    assert main(['train', name]) == 1
    err = capsys.readouterr().err
    assert said in err and '_base_' not in err and err.count('\n') == 1

"""An installed wheel, without a checkout: the console command, the scripts that mim looks for, other projects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / 'docs' / 'example_project'
SHORT = ['param_scheduler.0.end=2', 'param_scheduler.1.begin=2', 'train_cfg.max_iters=4', 'train_cfg.val_interval=2']
TINY = ['model.backbone.encoder_widths=(8,8,8)', 'model.backbone.decoder_widths=(8,8,8)']
CLIPS = ['train_dataloader.batch_size=2', 'val_dataloader.batch_size=2', 'val_dataloader.dataset.length=4']


class Environment:
    """A virtual environment with the wheel in it; other packages are those of the tests."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / 'bin'
        self.package = Path(sysconfig.get_path('purelib', vars={'base': str(folder)})) / 'pvvae_plugin'

    def run(self, folder: Path, program: str, *arguments: object, code: int = 0, path: Path | None = None) -> str:
        """What a program prints that is run in a folder, with ``path`` for PYTHONPATH."""
        variables = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        variables['PATH'] = f'{self.programs}{os.pathsep}{os.environ["PATH"]}'
        if path:
            variables['PYTHONPATH'] = str(path)
        command = [str(self.programs / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


@pytest.fixture(scope='module')
def environment(tmp_path_factory) -> Environment:
    pytest.importorskip('setuptools')
    source, folder = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('environment')
    for name in ('pvvae_plugin', 'configs', 'tools'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(ROOT / name, source)
    venv.create(folder, symlinks=True)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    build = [*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', source, source]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = source.glob('*.whl')
    install = [*pip, '--python', folder / 'bin' / 'python', 'install', '--no-deps', '--no-index', wheel]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    made = Environment(folder)
    # An editable install among the packages stays without effect: .pth files there are not read.
    (made.package.parent / 'tests.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return made


# Several commands in one process, as importing torch takes longer than each of them.
COMMANDS = """
import json, sys
import pvvae_plugin
from pvvae_plugin.cli.console import main
print('imported', pvvae_plugin.__file__)
print('demo is', pvvae_plugin.config_path('pvvae_demo.py'))
for command in json.loads(sys.argv[1]):
    code = main(command)
    # sheet.png, beside the samples, is not a video: verify names it
    assert code == 1 if command[0] == 'verify' else not code, (command, code)
"""


def test_commands_in_an_empty_folder(environment, tmp_path):
    """The VAE is trained by ``pvvae``, the generator by the script that mim looks for."""
    tools = environment.package / '.mim' / 'tools'
    vae, generator = 'work_dirs/pvvae_demo', 'work_dirs/dit_demo'
    log = environment.run(tmp_path, 'pvvae', 'train', 'pvvae_demo', '--cfg-options', *SHORT, *TINY, *CLIPS)
    assert 'Iter(val)' in log and (tmp_path / vae / 'iter_4.pth').is_file()
    head = [f'model.backbone_checkpoint={vae}', 'model.head.depth=2', 'model.head.hidden_size=32']
    head.append('model.head.num_heads=2')
    few = ['custom_hooks.4.num_clips=4', 'custom_hooks.6.num_clips=1', 'custom_hooks.6.num_inference_steps=1']
    options = [*SHORT, *TINY, *CLIPS, *head, *few]
    environment.run(tmp_path, 'python', tools / 'train.py', 'dit_demo', '--cfg-options', *options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['work_dirs']

    overrides, sampling = ['--cfg-options', *TINY, *CLIPS], ['--num-inference-steps', '2', '--num', '3']
    commands = [
        ['test', 'pvvae_demo', vae, '--out', 'metrics.json', *overrides],
        ['report', 'metrics.json'],
        ['export', 'pvvae_demo', vae, 'exported', *overrides],
        ['extract-latents', 'pvvae_demo', vae, 'latents', '--split', 'val', *overrides],
        ['sample', 'dit_demo', generator, '--out-dir', 'real', *sampling, '--cfg-options', *TINY, *head],
        ['evaluate', 'real', 'real', *['--metrics', 'psnr', '--workers', '0', '--out', 'result.json']],
        ['verify', 'real', '--clip-len', '9', '--workers', '1', '--out', 'report.json'],
    ]
    commands[5] += ['--protocol-options', 'num_frames=9']
    printed = environment.run(tmp_path, 'python', '-c', COMMANDS, json.dumps(commands))
    assert f'imported {environment.package / "__init__.py"}' in printed
    assert f'demo is {environment.package / ".mim" / "configs" / "pvvae_demo.py"}' in printed

    def content(name: str) -> dict:
        return json.loads((tmp_path / name).read_text())

    assert 'recon/psnr' in content('metrics.json')['metrics']
    assert (tmp_path / 'exported' / 'model.safetensors').is_file()
    assert content('latents/manifest.json')['num_clips'] == 4
    assert content('result.json')['metrics']['recon/psnr'] == 100
    assert content('report.json')['bad'] == [] and content('report.json')['complete']
    usage = subprocess.run(['bash', tools / 'dist_train.sh', 'pvvae_demo'], capture_output=True, text=True, timeout=60)
    assert usage.returncode == 2 and 'CONFIG GPUS' in usage.stderr


@pytest.mark.long
def test_the_example_project_trains_on_an_installed_wheel(environment, tmp_path):
    """In a folder of its own, under its own default scope."""
    project = tmp_path / 'project'
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns('__pycache__', 'work_dirs'))
    options = [
        'train_cfg.max_iters=2',
        'param_scheduler.0.end=1',
        'param_scheduler.1.begin=1',
        'train_cfg.val_interval=2',
    ]
    options += ['train_dataloader.batch_size=2', 'val_dataloader.dataset.length=2', 'default_hooks.logger.interval=1']
    for config in ('falling_bars', 'falling_bars_pure_python'):
        arguments = ('train.py', f'configs/{config}.py', '--work-dir', config, '--cfg-options', *options)
        log = environment.run(project, 'python', *arguments, path=project)
        assert 'loss_abs: ' in log
        assert (project / config / 'iter_2.pth').is_file()

"""Configs of other projects inherit ours by name, from a checkout and from a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

import pvvae_plugin

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / 'docs' / 'example_project'


def read(tmp_path, text):
    path = tmp_path / 'config.py'
    path.write_text(text)
    return Config.fromfile(path)


def without_scope(value):
    if isinstance(value, dict):
        return {key: without_scope(v) for key, v in value.items() if key != '_scope_'}
    return [without_scope(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize('name', ['pvvae_demo', 'dit_pvvae_i2v', '_base_/ucf101'])
def test_every_form_gives_the_same(tmp_path, name):
    plain = Config.fromfile(pvvae_plugin.config_path(f'{name}.py'))
    by_name = read(tmp_path, f"_base_ = 'pvvae_plugin::{name}.py'")
    by_path = read(tmp_path, f"_base_ = __import__('pvvae_plugin').config_path('{name}.py')")
    module = name.replace('/', '.')
    imported = read(
        tmp_path,
        f'from mmengine.config import read_base\nwith read_base():\n    from pvvae_plugin.configs.{module} import *\n',
    )
    assert by_path.to_dict() == plain.to_dict()
    assert without_scope(by_name.to_dict()) == without_scope(plain.to_dict())
    assert without_scope(imported.to_dict()) == without_scope(plain.to_dict())
    assert by_name.train_dataloader.dataset._scope_ == imported.train_dataloader.dataset._scope_ == 'pvvae_plugin'


def test_what_is_inherited_can_be_used_and_changed(tmp_path):
    cfg = read(
        tmp_path,
        "_base_ = 'pvvae_plugin::pvvae_demo.py'\n"
        'model = dict(backbone=dict(latent_channels=8))\n'
        'pipeline = _base_.train_dataloader.dataset.pipeline[1:]\n',
    )
    assert (cfg.model.backbone.latent_channels, cfg.model.backbone.patch_size) == (8, 4)
    assert [step.type for step in cfg.pipeline] == ['PackClip']


def test_unknown_names_and_other_packages(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config 'pvvae_dem.py' in pvvae_plugin; there are .*pvvae_demo.py"):
        read(tmp_path, "_base_ = 'pvvae_plugin::pvvae_dem.py'")
    with pytest.raises(AssertionError, match='does not support to load other'):  # MMEngine's own answer
        read(tmp_path, "_base_ = 'other::folder/config.py'")


def test_registering_twice_changes_nothing():
    from pvvae_plugin.inheritance import register_configs

    before = Config._get_cfg_path
    register_configs()
    assert Config._get_cfg_path is before


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder with the package as a wheel installs it."""
    pytest.importorskip('setuptools')
    source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('installed')
    for name in ('pvvae_plugin', 'configs'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    options = ['--no-deps', '--no-build-isolation', '--target', str(target)]
    subprocess.run([*pip, 'install', *options, str(source)], check=True, capture_output=True, timeout=300)
    return target


def test_the_example_project_trains_on_an_installed_wheel(installed, tmp_path):
    """In a folder of its own, under its own default scope."""
    project = tmp_path / 'project'
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns('__pycache__', 'work_dirs'))
    environment = {**os.environ, 'PYTHONPATH': f'{installed}{os.pathsep}{project}'}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    where = run('-c', 'import pvvae_plugin; print(pvvae_plugin.config_path("pvvae_demo.py"))')
    assert where.strip() == str(installed / 'pvvae_plugin' / '.mim' / 'configs' / 'pvvae_demo.py')
    options = [
        'train_cfg.max_iters=2',
        'param_scheduler.0.end=1',
        'param_scheduler.1.begin=1',
        'train_cfg.val_interval=2',
    ]
    options += ['train_dataloader.batch_size=2', 'val_dataloader.dataset.length=2', 'default_hooks.logger.interval=1']
    for config in ('falling_bars', 'falling_bars_pure_python'):
        log = run('train.py', f'configs/{config}.py', '--work-dir', config, '--cfg-options', *options)
        assert 'loss_abs: ' in log
        assert (project / config / 'iter_2.pth').is_file()

"""Configs of other projects inherit ours by name; tests/cli/test_wheel.py tests this for a wheel."""

from __future__ import annotations

import pytest
from mmengine.config import Config

import pvvae_plugin


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
    with pytest.raises(FileNotFoundError, match="no config 'pvvae_dem.py' in pvvae_plugin; did you mean pvvae_demo.py"):
        read(tmp_path, "_base_ = 'pvvae_plugin::pvvae_dem.py'")
    with pytest.raises(AssertionError, match='does not support to load other'):  # MMEngine's own result
        read(tmp_path, "_base_ = 'other::folder/config.py'")


def test_registering_twice_changes_nothing():
    from pvvae_plugin.inheritance import register_configs

    before = Config._get_cfg_path
    register_configs()
    assert Config._get_cfg_path is before

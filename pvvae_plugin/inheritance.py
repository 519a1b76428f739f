"""Hooks that let configs of other projects inherit ours by name.

MMEngine resolves ``_base_ = 'package::config.py'`` for a fixed list of packages only, and pure-Python configs inherit
only from other pure-Python configs. The hooks below handle ``pvvae_plugin`` and pass everything else to MMEngine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine.config.config as parser
from mmengine.config import Config, ConfigDict

from .paths import config_path, config_root

PACKAGE = 'pvvae_plugin'


def register_configs() -> None:
    """Register our configs with MMEngine for the rest of this process.

    - ``_base_ = 'pvvae_plugin::pvvae_ucf101.py'``
    - ``with read_base(): from pvvae_plugin.configs.pvvae_ucf101 import *``

    Inherited components are prefixed with our scope, so their names resolve under any default scope.
    """
    if hasattr(parser, '_finds_pvvae_plugin'):
        return
    parser._finds_pvvae_plugin = True
    Config._get_cfg_path = staticmethod(_named(Config._get_cfg_path))
    Config._parse_lazy_import = staticmethod(_imported(Config._parse_lazy_import))
    parser.get_installed_path = _installed(parser.get_installed_path)


def _named(others: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Config._get_cfg_path`` to resolve ``'pvvae_plugin::NAME'`` to path and scope."""

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, separator, name = cfg_path.partition('::')
        if not separator or package != PACKAGE:
            return others(cfg_path, filename)
        return config_path(name), PACKAGE

    return get_cfg_path


def _installed(others: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``get_installed_path`` to return the parent folder of ``configs/`` for ``pvvae_plugin``."""

    def get_installed_path(package: str) -> str:
        return str(config_root().parent) if package == PACKAGE else others(package)

    return get_installed_path


def _imported(others: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Config._parse_lazy_import`` to return the variables of our configs to pure-Python configs."""

    def parse_lazy_import(filename: str) -> tuple[ConfigDict, set]:
        if config_root() not in Path(filename).resolve().parents:
            return others(filename)
        lazy, ConfigDict.lazy = ConfigDict.lazy, False
        try:
            variables = Config._file2dict(filename, lazy_import=False)[0]
            return Config._dict_to_config_dict_lazy(Config._dict_to_config_dict(variables, PACKAGE)), set()
        finally:
            ConfigDict.lazy = lazy

    return parse_lazy_import

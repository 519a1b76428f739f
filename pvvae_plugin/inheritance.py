"""Lets configs of other projects inherit ours by name.

MMEngine resolves ``_base_ = 'package::config.py'`` for a fixed list of packages, and pure-Python configs inherit only
such as are themselves written so. Both are taught here to find ours: the hooks below answer for ``pvvae_plugin`` and
pass everything else on.
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
    """Make our configs known to MMEngine, for the rest of this process.

    - ``_base_ = 'pvvae_plugin::pvvae_ucf101.py'``
    - ``with read_base(): from pvvae_plugin.configs.pvvae_ucf101 import *``

    Each component in them then carries our scope, so that its name resolves under any default scope.
    """
    if hasattr(parser, '_finds_pvvae_plugin'):
        return
    parser._finds_pvvae_plugin = True
    Config._get_cfg_path = staticmethod(_named(Config._get_cfg_path))
    Config._parse_lazy_import = staticmethod(_imported(Config._parse_lazy_import))
    parser.get_installed_path = _installed(parser.get_installed_path)


def _named(others: Callable[..., Any]) -> Callable[..., Any]:
    """Path and scope of ``'pvvae_plugin::NAME'``."""

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, separator, name = cfg_path.partition('::')
        if not separator or package != PACKAGE:
            return others(cfg_path, filename)
        return config_path(name), PACKAGE

    return get_cfg_path


def _installed(others: Callable[..., Any]) -> Callable[..., Any]:
    """Folder in which ``configs/`` lies, as which ``pvvae_plugin.configs`` is looked up."""

    def get_installed_path(package: str) -> str:
        return str(config_root().parent) if package == PACKAGE else others(package)

    return get_installed_path


def _imported(others: Callable[..., Any]) -> Callable[..., Any]:
    """Variables of a config of ours, as a pure-Python config imports them."""

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

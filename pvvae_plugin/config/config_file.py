"""Configs by path or by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pvvae_plugin import config_path

from .overrides import apply_overrides, warn_of_misspelt_keys


def read_config(config: Config | str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a config by path, or by the name of one of ours: ``'pvvae_demo'``, ``'pvvae_plugin::pvvae_demo.py'``.

    A config is code: one in Python or YAML runs when it is read, one in JSON may name any class. Read none of a
    stranger's that you have not looked through.

    Args:
        config: Path or name; a :class:`Config` is changed in place.
        overrides: See :func:`apply_overrides`.

    Raises:
        FileNotFoundError: If there is none, naming ours.
        ValueError: If an override would change nothing.

    Example:
        >>> from pvvae_plugin.config import read_config
        >>> cfg = read_config('pvvae_demo', overrides={'train_cfg.max_iters': 100})
        >>> cfg.model.type, cfg.train_cfg.max_iters
        ('VideoAutoencoder', 100)
    """
    cfg = config if isinstance(config, Config) else _read(config)
    apply_overrides(cfg, overrides)
    return cfg


def _read(config: str | Path) -> Config:
    path = os.fspath(config)
    if os.path.isdir(path) and os.sep in path:
        raise FileNotFoundError(f'{path} is a folder without config.json, neither a VAE nor a config')
    if not os.path.isfile(path):
        path = path.removeprefix('pvvae_plugin::')
        path = config_path(path if path.endswith('.py') else f'{path}.py')
    cfg = Config.fromfile(path)
    warn_of_misspelt_keys(cfg)
    return cfg

"""Configs by path or by name."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config

from pvvae_plugin import config_path


def read_config(config: Config | str | Path) -> Config:
    """A config from its path, or from the name of one of ours: ``'pvvae_demo'``, ``'pvvae_plugin::pvvae_demo.py'``.

    Raises:
        FileNotFoundError: If there is none, naming ours.
    """
    if isinstance(config, Config):
        return config
    path = os.fspath(config)
    if os.path.isdir(path) and os.sep in path:
        raise FileNotFoundError(f'{path} is a folder without config.json, neither a VAE nor a config')
    if not os.path.isfile(path):
        path = path.removeprefix('pvvae_plugin::')
        path = config_path(path if path.endswith('.py') else f'{path}.py')
    return Config.fromfile(path)

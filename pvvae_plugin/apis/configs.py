"""Configs by path or by name."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config

from pvvae_plugin import config_path


def read_config(config: Config | str | Path) -> Config:
    """A config from its path, or from the name of one of ours, such as ``'pvvae_demo'``.

    Raises:
        FileNotFoundError: If there is none, naming ours.
    """
    if isinstance(config, Config):
        return config
    path = os.fspath(config)
    if not os.path.isfile(path):
        path = config_path(path if path.endswith('.py') else f'{path}.py')
    return Config.fromfile(path)

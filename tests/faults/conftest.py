from __future__ import annotations

from pathlib import Path

import pytest
from runs import VAE, run, train_command, write_config


@pytest.fixture(scope='module')
def vae(tmp_path_factory) -> tuple[Path, Path]:
    """Config of a small VAE, and the work directory of its run, which nothing disturbed."""
    folder = tmp_path_factory.mktemp('vae')
    config = write_config(folder / 'config.py', VAE)
    run(train_command(config, folder / 'whole'))
    return config, folder / 'whole'

"""Paths of the configs of this package."""

from __future__ import annotations

import difflib
from pathlib import Path


def config_root() -> Path:
    """Return the folder of our configs.

    Raises:
        FileNotFoundError: If the folder is missing.
    """
    package = Path(__file__).resolve().parent
    # A wheel contains the configs inside the package; a checkout has them next to it.
    for folder in (package / '.mim' / 'configs', package.parent / 'configs'):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f'the configs of pvvae_plugin are missing from {package}; reinstall the package')


def config_path(name: str) -> str:
    """Return the path of a config that ships with this package.

    For use in a config: ``_base_ = __import__('pvvae_plugin').config_path('pvvae_ucf101.py')``.

    Args:
        name: Path relative to ``configs/``.

    Raises:
        FileNotFoundError: If the config does not exist. The message names similar ones.

    Example:
        >>> from mmengine.config import Config
        >>> from pvvae_plugin import config_path
        >>> Config.fromfile(config_path('pvvae_demo.py')).model.backbone.type
        'PredictiveVAE'
    """
    root = config_root()
    if not (root / name).is_file():
        near = difflib.get_close_matches(Path(name).name, sorted(path.name for path in root.glob('*.py')), n=3)
        meant = f'did you mean {" or ".join(near)}? ' if near else ''
        raise FileNotFoundError(
            f'no config {name!r} in pvvae_plugin; {meant}docs/configs.md describes all of them, they are in {root}'
        )
    return str(root / name)

"""Paths of the configs of this package."""

from __future__ import annotations

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
        FileNotFoundError: If the config does not exist. The message lists the available ones.

    Example:
        >>> from mmengine.config import Config
        >>> from pvvae_plugin import config_path
        >>> Config.fromfile(config_path('pvvae_demo.py')).model.backbone.type
        'PredictiveVAE'
    """
    root = config_root()
    if not (root / name).is_file():
        known = sorted(str(p.relative_to(root)) for p in root.rglob('*.py'))
        raise FileNotFoundError(f'no config {name!r} in pvvae_plugin; there are {", ".join(known)}')
    return str(root / name)

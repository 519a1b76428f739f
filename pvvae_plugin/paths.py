"""Where our configs lie."""

from __future__ import annotations

from pathlib import Path


def config_root() -> Path:
    """The folder of our configs.

    Raises:
        FileNotFoundError: If it is not there.
    """
    package = Path(__file__).resolve().parent
    # A wheel carries the configs inside the package; a checkout has them beside it.
    for folder in (package / '.mim' / 'configs', package.parent / 'configs'):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f'the configs of pvvae_plugin are not with {package}: install it again')


def config_path(name: str) -> str:
    """Path of one of our configs, for ``_base_ = __import__('pvvae_plugin').config_path('pvvae_ucf101.py')``.

    Args:
        name: Path below ``configs/``.

    Raises:
        FileNotFoundError: If there is no such config, naming those there are.

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

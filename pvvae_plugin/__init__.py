"""Predictive video VAEs (PV-VAE, arXiv 2605.02134) for MMEngine.

Importing the package checks the versions of its dependencies, allows ``torch.load`` to read MMEngine checkpoints
safely, and lets configs inherit ours by name. Components are imported on the first lookup in a registry.
"""

from __future__ import annotations

import warnings

import mmengine
import torch
from mmengine.utils import digit_version

from .version import __version__

try:
    import mmcv
except ImportError as error:
    raise ImportError(
        'pvvae_plugin needs mmcv: pip install "pvvae_plugin[mmcv]" installs mmcv-lite, which is sufficient; '
        'full mmcv (2.x) also works'
    ) from error

_BOUNDS = {'torch': (torch, '2.6', None), 'mmengine': (mmengine, '0.10.4', '1.0'), 'mmcv': (mmcv, '2.0.1', '3.0')}
for _name, (_module, _low, _high) in _BOUNDS.items():
    _version = digit_version(_module.__version__)
    if _version < digit_version(_low) or (_high and _version >= digit_version(_high)):
        _wanted = f'>={_low}' + (f',<{_high}' if _high else '')
        raise ImportError(
            f'pvvae_plugin {__version__} needs {_name}{_wanted}, found {_module.__version__}: '
            f'pip install "{_name if _name != "mmcv" else "mmcv-lite"}{_wanted}"'
        )
if digit_version(torch.__version__) < digit_version('2.10'):
    warnings.warn(
        f'torch {torch.__version__} can execute code from a crafted checkpoint (CVE-2026-24747); '
        'use torch>=2.10 to load untrusted files',
        stacklevel=2,
    )

# Imported after the version checks.
from .inheritance import register_configs  # noqa: E402
from .paths import config_path  # noqa: E402
from .safe_globals import allow_checkpoint_globals  # noqa: E402

allow_checkpoint_globals()
register_configs()


__all__ = ['__version__', 'config_path']

"""Config files, read by path or by name."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pvvae_plugin import config_path
from pvvae_plugin.renaming import warn_renamed

from .clip_facts import type_name
from .overrides import apply_overrides, warn_of_misspelled_keys


def read_config(config: Config | str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a config by path or, for the configs of this package, by name.

    Valid names are for example ``'pvvae_demo'`` and ``'pvvae_plugin::pvvae_demo.py'``.

    Configs are code: Python and YAML files are executed when they are read, and JSON files may name any class. Review
    a config from an untrusted source before you read it.

    Args:
        config: Path or name; a :class:`Config` is changed in place.
        overrides: See :func:`apply_overrides`.

    Raises:
        FileNotFoundError: If the config does not exist. The message names similar ones.
        ValueError: If an override would have no effect, or the config cannot be read. The message names the line.

    Example:
        >>> from pvvae_plugin.config import read_config
        >>> cfg = read_config('pvvae_demo', overrides={'train_cfg.max_iters': 100})
        >>> cfg.model.type, cfg.train_cfg.max_iters
        ('VideoAutoencoder', 100)
    """
    cfg = config if isinstance(config, Config) else _read(config)
    overrides = {_today(key, cfg): value for key, value in (overrides or {}).items()}
    _rename_old_entries(cfg)
    apply_overrides(cfg, overrides)
    return cfg


def _read(config: str | Path) -> Config:
    path = os.fspath(config)
    if os.path.isdir(path) and os.sep in path:
        raise FileNotFoundError(f'{path} is a folder; give a config file, or the name of a config such as pvvae_demo')
    if not os.path.isfile(path):
        path = path.removeprefix('pvvae_plugin::')
        path = config_path(path if path.endswith('.py') else f'{path}.py')
    try:
        cfg = Config.fromfile(path)
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise ValueError(f'{path} cannot be read: {_describe(error)}') from error
    warn_of_misspelled_keys(cfg)
    return cfg


def _describe(error: Exception) -> str:
    """Return type and message of an error in a config, and the line that caused it."""
    if isinstance(error, SyntaxError):
        what, place, line = error.msg, f'line {error.lineno}', error.text or ''
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        what, place, line = str(error), f'{last.filename}, line {last.lineno}', last.line or ''
    return f'{type(error).__name__}: {what} ({place}: {line.strip()})'


def _old_names(cfg: Config) -> dict[str, dict[str, str]]:
    """Map places in the config to the old and current names of their entries."""
    kind = type_name(cfg.get('model') or {})
    names = {'test_cfg.sampling': {'guidance': 'guidance_scale', 'interval': 'guidance_interval'}}
    if kind == 'VideoAutoencoder':
        names['optim_wrapper'] = {'generator': 'vae'}
    if kind == 'LatentVideoGenerator':
        names['model'] = {'times': 'time_sampling'}
        names['model.head'] = {'width': 'hidden_size', 'heads': 'num_heads'}
    return names


def _today(key: str, cfg: Config) -> str:
    """Replace old entry names in the key of an override."""
    for place, names in _old_names(cfg).items():
        rest = key.removeprefix(f'{place}.')
        first, dot, tail = rest.partition('.')
        if rest != key and first in names:
            warn_renamed(f'{place}.{first}', f'{place}.{names[first]}', cfg.filename or 'config')
            return f'{place}.{names[first]}{dot}{tail}'
    return key


def _rename_old_entries(cfg: Config) -> None:
    """Rename entries in place. If both names are given, the old one overrides an inherited value and wins."""
    for place, names in _old_names(cfg).items():
        node: Any = cfg
        for part in place.split('.'):
            node = (node.get(part) or {}) if node else {}
        for old in names.keys() & node.keys():
            new, value = names[old], node.pop(old)
            warn_renamed(f'{place}.{old}', f'{place}.{new}', cfg.filename or 'config')
            both = isinstance(value, Mapping) and isinstance(node.get(new), Mapping)
            node[new] = Config._merge_a_into_b(value, node[new]) if both else value

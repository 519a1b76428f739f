"""Construction of the runner of a config."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner

from pvvae_plugin.registry import STRATEGIES

from .fsdp import GeneratorFSDPStrategy, check_launcher, only_for_generators
from .log_text import hide_messages_not_for_users

# First words of MMEngine's listings of the environment, the config and the hooks: about 300 lines.
LISTINGS = ('\n' + '-' * 60, 'Config:\n', 'Hooks will be executed')


class _ShortConsole:
    """Write the listings to the log file only. On the console, they would bury the messages of a start that fails."""

    logger: logging.Logger

    def _log_env(self, *args: Any) -> None:
        for handler in self.logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not record.getMessage().startswith(LISTINGS))
        super()._log_env(*args)


class _Runner(_ShortConsole, Runner):
    def setup_env(self, env_cfg: dict) -> None:
        with warnings.catch_warnings():  # each process would report that it uses one thread
            warnings.filterwarnings('ignore', message='Setting (OMP|MKL)_NUM_THREADS')
            super().setup_env(env_cfg)

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        return hide_messages_not_for_users(super().build_logger(*args, **kwargs))


class _FlexibleRunner(_ShortConsole, FlexibleRunner):
    pass


def build_runner(cfg: Config) -> Runner | FlexibleRunner:
    """Build the runner of a config: MMEngine's ``Runner``, or ``FlexibleRunner`` if there is a ``strategy``.

    Environment, config and list of hooks are written to the log file only.

    Raises:
        ValueError: If the strategy does not match the model or the launcher.

    Example:
        >>> from pvvae_plugin.config import read_config
        >>> from pvvae_plugin.engine import build_runner
        >>> cfg = read_config('pvvae_demo', {'work_dir': 'runs/demo', 'train_cfg.max_iters': 100})
        >>> runner = build_runner(cfg)  # runner.train() trains
        >>> type(runner.model).__name__, runner.max_iters
        ('VideoAutoencoder', 100)
    """
    strategy = cfg.get('strategy')
    if strategy is None:
        return _Runner.from_cfg(cfg)
    kind = STRATEGIES.get(strategy['type']) if isinstance(strategy['type'], str) else strategy['type']
    if kind is None or not issubclass(kind, GeneratorFSDPStrategy):
        raise ValueError(
            f"strategy.type must be 'GeneratorFSDPStrategy', got {strategy['type']!r}: other strategies do not support "
            'algorithms with several parts. To train without FSDP, remove strategy'
        )
    if 'head' not in cfg.model:
        raise ValueError(only_for_generators(cfg.model['type']))
    check_launcher(cfg.get('launcher', 'none'))
    return _FlexibleRunner.from_cfg(cfg)

"""Text of a run's log: results in one line, without messages of MMEngine that do not concern users."""

from __future__ import annotations

import logging
import re
from typing import Any

from mmengine.runner import LogProcessor, Runner

from pvvae_plugin.evaluation import format_prediction_table
from pvvae_plugin.registry import LOG_PROCESSORS

PREDICTION = re.compile(r'(^|/)k\d+_')  # results of FuturePrediction
HEADLINE = re.compile(r'(^|/)k\d+_vs_repeat$')
# Nothing here or in a user's config can change these.
NOT_FOR_USERS = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'Distributed training is not used, all SyncBatchNorm',
)


@LOG_PROCESSORS.register_module()
class ShortLogProcessor(LogProcessor):
    """``LogProcessor`` with one short line per validation.

    Of the results of :class:`FuturePrediction`, a validation shows the ratios to the repeated frame, and a test shows
    all, as a table. Lists, such as PSNR by frame, are shown by tests only. TensorBoard and the JSON files of a run
    contain all results.

    Args:
        args, kwargs: Arguments of MMEngine's ``LogProcessor``.

    Example:
        >>> from pvvae_plugin.registry import LOG_PROCESSORS
        >>> processor = LOG_PROCESSORS.build(dict(type='ShortLogProcessor', window_size=50, by_epoch=False))
        >>> processor.window_size
        50
    """

    def get_log_after_epoch(
        self, runner: Runner, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict[str, Any], str]:
        tag, text = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        shown = {k: v for k, v in tag.items() if not PREDICTION.search(k) or (mode == 'val' and HEADLINE.search(k))}
        values = {k: f'{v:.{self.num_digits}f}' if isinstance(v, float) else v for k, v in shown.items()}
        line = '  '.join([text.partition('  ')[0], *(f'{name}: {value}' for name, value in values.items())])
        predictions = {k.rpartition('/')[2]: v for k, v in tag.items() if PREDICTION.search(k)}
        if mode == 'val' or not predictions:
            return tag, line
        return tag, f'{line}\n{format_prediction_table(predictions)}'


def hide_messages_not_for_users(logger: logging.Logger) -> logging.Logger:
    """Drop MMEngine's messages about its own interfaces, and return the logger.

    Example:
        >>> import logging
        >>> from pvvae_plugin.engine.log_text import hide_messages_not_for_users
        >>> logger = hide_messages_not_for_users(logging.getLogger('run'))
        >>> len(logger.filters)
        1
    """
    if not logger.filters:  # MMEngine returns the same logger again
        logger.addFilter(lambda record: not str(record.msg).startswith(NOT_FOR_USERS))
    return logger

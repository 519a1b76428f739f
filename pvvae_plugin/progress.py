"""Progress of long loops: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

import mmengine.utils

SECONDS_BETWEEN_LINES = 300


class ProgressBar(mmengine.utils.ProgressBar):
    """MMEngine's ``ProgressBar``, which writes plain lines if its file is not a terminal.

    A line is written per tenth of the tasks, or after 5 minutes without one.

    Args:
        task_num: Number of tasks.
        file: Output (default: ``sys.stdout``).
        kwargs: Further arguments of MMEngine's bar.

    Example:
        >>> from pvvae_plugin.progress import ProgressBar
        >>> bar = ProgressBar(20, file=open('progress.txt', 'w'))
        >>> for _ in range(20):
        ...     bar.update()
        >>> len(open('progress.txt').readlines())
        10
    """

    def __init__(self, task_num: int, file: TextIO | None = None, **kwargs: Any) -> None:
        file = file or sys.stdout
        self._draws, self._tenth, self._written = file.isatty(), 0, time.monotonic()
        super().__init__(task_num, file=file, **kwargs)

    def start(self) -> None:
        if self._draws:
            super().start()
        else:
            self.timer = mmengine.utils.Timer()

    def update(self, num_tasks: int = 1) -> None:
        if self._draws:
            super().update(num_tasks)
            return
        self.completed += num_tasks
        tenth, now = 10 * self.completed // self.task_num, time.monotonic()
        if tenth == self._tenth and now - self._written < SECONDS_BETWEEN_LINES:
            return
        self._tenth, self._written = tenth, now
        elapsed = self.timer.since_start()
        left = elapsed * (self.task_num / self.completed - 1)
        self.file.write(f'{self.completed}/{self.task_num}, elapsed: {elapsed:.0f}s, ETA: {left:.0f}s\n')
        self.file.flush()

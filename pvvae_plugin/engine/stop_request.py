"""Clean shutdown on signals, at the same iteration in all processes."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed
from mmengine.logging import print_log

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not finished, restart the run
INTERRUPTED = 130  # as shells report Ctrl-C: not finished, do not restart
SIGNALS = ('SIGTERM', 'SIGUSR1', 'SIGINT')
GO_ON, STOP, FAILED = 0, 1, 2


class StopRequest:
    """Context manager that records stop signals and lets all processes act on them together.

    It handles SIGTERM and SIGUSR1, which schedulers send before they end a job, and Ctrl-C. A second Ctrl-C ends the
    process immediately. The death of torchrun counts as a stop request too, because nothing else would end the process.

    The previous signal handlers are restored on exit. Data workers, which a scheduler may signal as well, ignore these
    signals, see :func:`ignore_signals`.

    Attributes:
        exit_code (int): Exit code of the run after a stop request.
    """

    def __init__(self) -> None:
        self.exit_code = EXIT_CODE
        self._asked = False
        self._before: dict[int, Any] = {}
        self._group = None
        self._parent = os.getppid() if 'TORCHELASTIC_RUN_ID' in os.environ else None

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        if not self._asked and self._parent is not None and os.getppid() != self._parent:
            self._ask('torchrun is gone')
        return self._asked

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only the main thread can handle signals
            for name in SIGNALS:
                if (number := getattr(signal, name, None)) is not None:
                    self._before[number] = signal.signal(number, self._note)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            # A gloo group, so no GPU work waits for it. The timeout is long because a process answers only after it has
            # finished reading or validating.
            self._group = torch.distributed.new_group(backend='gloo', timeout=timedelta(days=1))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, SystemExit):
            ignore_signals()  # keep the exit code: a signal must not end the process first
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self.exit_code = INTERRUPTED
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
        self._ask(signal.Signals(number).name)

    def _ask(self, why: str) -> None:
        if not self._asked:
            self._asked = True
            again = '. Press Ctrl-C again to quit immediately' if why == 'SIGINT' else ''
            print_log(f'{why}: the run saves a checkpoint after this step and exits{again}', logger='current')

    def agree(self, failed: bool = False) -> int:
        """Return the common action: ``FAILED`` if any process failed, ``STOP`` if any was signalled, else ``GO_ON``.

        Args:
            failed: Whether this process failed to read a batch.
        """
        state = FAILED if failed else STOP if self.asked else GO_ON
        if self._group is None:
            return state
        states = torch.tensor(state)
        torch.distributed.all_reduce(states, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return int(states)

    def is_common(self, value: int) -> bool:
        """Return whether all processes have the same value."""
        if self._group is None:
            return True
        bounds = torch.tensor([value, -value])
        torch.distributed.all_reduce(bounds, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return int(bounds[0]) == -int(bounds[1])


def ignore_signals() -> None:
    """Ignore stop signals. Data workers call this to leave them to the main process."""
    for name in SIGNALS:
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)

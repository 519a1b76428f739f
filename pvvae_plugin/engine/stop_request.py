"""Leaving in good order when the machine is wanted back, all processes at the same iteration."""

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

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not done, and worth starting again
INTERRUPTED = 130  # as shells report Ctrl-C: not done, and nobody is to start it again
SIGNALS = ('SIGTERM', 'SIGUSR1', 'SIGINT')
GO_ON, STOP, FAILED = 0, 1, 2


class StopRequest:
    """Notes signals that announce the end, and lets all processes act on them together.

    These are SIGTERM and SIGUSR1, by which schedulers announce it, and Ctrl-C, the second of which ends the process at
    once. A process whose torchrun has died is asked too: nobody else would end it.

    To be used as a context: outside of it, signals do what they did before. Data workers, which a scheduler may signal
    as well, ignore them and wait for their process to end them: see :func:`ignore_signals`.

    Attributes:
        exit_code (int): With which the run leaves when it is asked to.
    """

    def __init__(self) -> None:
        self.exit_code = EXIT_CODE
        self._asked = False
        self._before: dict[int, Any] = {}
        self._group = None
        self._parent = os.getppid() if 'TORCHELASTIC_RUN_ID' in os.environ else None

    @property
    def asked(self) -> bool:
        """Whether this process is to stop."""
        if not self._asked and self._parent is not None and os.getppid() != self._parent:
            self._ask('torchrun is gone')
        return self._asked

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python gives signals to no other
            for name in SIGNALS:
                if (number := getattr(signal, name, None)) is not None:
                    self._before[number] = signal.signal(number, self._note)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            # On the CPU, whatever the gradients travel by: nothing on a GPU waits for it. A process may be kept from
            # answering for as long as another one reads or validates.
            self._group = torch.distributed.new_group(backend='gloo', timeout=timedelta(days=1))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, SystemExit):
            ignore_signals()  # it is leaving, and its exit code is to say why
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
            again = '. Ctrl-C again ends it at once' if why == 'SIGINT' else ''
            print_log(f'{why}: the run saves its state after this step and leaves{again}', logger='current')

    def agree(self, failed: bool = False) -> int:
        """What all processes do next, the same in each: ``FAILED`` if one has failed, ``STOP`` if one was signalled.

        Args:
            failed: Whether this process has no batch to go on with.
        """
        state = FAILED if failed else STOP if self.asked else GO_ON
        if self._group is None:
            return state
        states = torch.tensor(state)
        torch.distributed.all_reduce(states, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return int(states)

    def is_common(self, value: int) -> bool:
        """Whether all processes have this value."""
        if self._group is None:
            return True
        bounds = torch.tensor([value, -value])
        torch.distributed.all_reduce(bounds, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return int(bounds[0]) == -int(bounds[1])


def ignore_signals() -> None:
    """For data workers: leave signals to the process that they work for."""
    for name in SIGNALS:
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)

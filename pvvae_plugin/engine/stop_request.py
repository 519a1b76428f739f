"""Leaving in good order when the machine is wanted back, all processes at the same iteration."""

from __future__ import annotations

import signal
import threading
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed
from mmengine.logging import print_log

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: not done, and worth starting again
SIGNALS = ('SIGTERM', 'SIGUSR1')
GO_ON, STOP, FAILED = 0, 1, 2


class StopRequest:
    """Notes SIGTERM and SIGUSR1, by which schedulers announce the end, and lets all processes act on it together.

    To be used as a context: outside of it, signals do what they did before. Data workers, which a scheduler may signal
    as well, ignore SIGTERM and wait for their process to end them: see :func:`ignore_signals`.

    Attributes:
        asked (bool): Whether this process was signalled.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}
        self._group = None

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
        if not self.asked:
            self.asked = True
            print_log(
                f'{signal.Signals(number).name}: the run saves its state after this step and leaves', logger='current'
            )

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

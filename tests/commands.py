"""Commands of ``pvvae`` in the process of the tests, which saves the seconds that importing torch takes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from pvvae_plugin.cli.console import main

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
VARIABLES = ('LOCAL_RANK', 'CUBLAS_WORKSPACE_CONFIG')


@contextmanager
def own_process_state() -> Iterator[None]:
    """Undo at the end what commands change in their process: a run's loggers write to its streams and work directory.

    Raises:
        AssertionError: If a process group is left.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    children = set(multiprocessing.active_children())
    variables, argv = {name: os.environ.get(name) for name in VARIABLES}, sys.argv
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
        sys.argv = argv
        for kind in (MMLogger, Visualizer):
            kind._instance_dict.clear()
        torch.use_deterministic_algorithms(False)
        # Data workers end with their process; where that goes on, PyTorch waits 5 s for each of them.
        for child in set(multiprocessing.active_children()) - children:
            if child.daemon:
                child.kill()
                child.join()
    assert not torch.distributed.is_initialized()


def pvvae(*arguments: object) -> str:
    """Run a command as a process of its own would, and return what it printed."""
    printed = StringIO()
    with (
        own_process_state(),
        DefaultScope.overwrite_default_scope('pvvae_plugin'),
        redirect_stdout(printed),
        redirect_stderr(printed),
    ):
        for kind in (MMLogger, MessageHub, Visualizer):
            kind._instance_dict.clear()
        code = main([*map(str, arguments), '--debug'])  # errors raise
    assert not code, printed.getvalue()
    return printed.getvalue()

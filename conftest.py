"""State that every test starts with, in tests/ and in projects/."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

import pvvae_plugin  # noqa: F401

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Shells start what goes to the background so, and processes that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def plain_scope():
    """Every test starts under our default scope, with no history of another run."""
    MessageHub._instance_dict.clear()
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('pvvae_plugin'):
        yield


@pytest.fixture(autouse=True)
def own_process_state():
    """What commands change in their process is as before after a test that runs one in this process."""
    variables, argv = dict(os.environ), sys.argv
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name in ('LOCAL_RANK', 'CUBLAS_WORKSPACE_CONFIG'):
        if name not in variables:
            os.environ.pop(name, None)
    sys.argv = argv
    for kind in (MMLogger, Visualizer):  # those of a run write to its streams and its work directory
        kind._instance_dict.clear()
    torch.use_deterministic_algorithms(False)
    assert not torch.distributed.is_initialized(), 'the test left a process group'

"""State that every test starts with, in tests/ and in projects/."""

from __future__ import annotations

import signal

import pytest
import torch
from commands import own_process_state
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

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
def own_state():
    """Undo after each test what it changed in its process."""
    with own_process_state():
        yield

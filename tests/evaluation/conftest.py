import logging

import pytest
from drawn_samples import build_sample
from mmengine.logging import MMLogger


@pytest.fixture
def make_sample():
    return build_sample


@pytest.fixture
def log_lines():
    """Lines that mmengine's logger writes during a test; it does not propagate to the root logger."""
    lines = []

    class Collect(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    logger = MMLogger.get_current_instance()
    handler, level = Collect(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)

"""What a number was measured on."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def processor() -> str:
    """Name of the CPU; of its architecture alone where the system does not tell."""
    info = Path('/proc/cpuinfo')
    names = re.findall(r'model name\s*: (.*)', info.read_text(encoding='utf-8')) if info.exists() else []
    return names[0] if names else platform.machine()

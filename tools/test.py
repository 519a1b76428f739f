"""Evaluate a checkpoint; the same as ``pvvae test``.

python tools/test.py CONFIG CHECKPOINT [--out JSON] [--show-dir DIR] [--cfg-options K=V ...]
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.test import main

if __name__ == '__main__':
    sys.exit(start(main))

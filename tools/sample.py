"""Generate videos; the same as ``pvvae sample``.

python tools/sample.py CONFIG CHECKPOINT [--num N] [--labels CLASS ...] [--out-dir DIR]
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.sample import main

if __name__ == '__main__':
    sys.exit(start(main))

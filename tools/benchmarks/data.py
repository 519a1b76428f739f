"""Benchmark the training loader; the same as ``pvvae benchmark data``.

python tools/benchmarks/data.py [--config CONFIG] [--data VIDEOS] [--json FILE]
"""

import sys

from pvvae_plugin.cli.benchmarks.data import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

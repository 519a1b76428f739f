"""Benchmark encoding and decoding in chunks; the same as ``pvvae benchmark stream``.

python tools/benchmarks/stream.py [--config CONFIG] [--lengths T ...]
"""

import sys

from pvvae_plugin.cli.benchmarks.stream import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

"""Benchmark the training loader; the same as ``pvvae benchmark data``.

python tools/benchmarks/data.py [--config CONFIG] [--data VIDEOS] [--json FILE]
"""

import sys

from pvvae_plugin.cli.benchmarks.data import main

if __name__ == '__main__':
    sys.exit(main())

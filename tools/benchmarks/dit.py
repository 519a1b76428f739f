"""Benchmark LatentDiT; the same as ``pvvae benchmark dit``.

python tools/benchmarks/dit.py [--device cuda] [--size SIZE] [--json FILE]
"""

import sys

from pvvae_plugin.cli.benchmarks.dit import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

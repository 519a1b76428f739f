"""Benchmark LatentDiT; the same as ``pvvae benchmark dit``.

python tools/benchmarks/dit.py [--device cuda] [--size SIZE] [--json FILE]
"""

import sys

from pvvae_plugin.cli.benchmarks.dit import main

if __name__ == '__main__':
    sys.exit(main())

"""Benchmark a training step; the same as ``pvvae benchmark train-step``.

python tools/benchmarks/train_step.py [--device cuda] [--size SIZE] [--json FILE]
"""

import sys

from pvvae_plugin.cli.benchmarks.train_step import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

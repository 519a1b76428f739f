"""Benchmark the VAE; the same as ``pvvae benchmark vae``.

python tools/benchmarks/vae.py [--device cuda] [--size SIZE] [--json FILE]
"""

import sys

from pvvae_plugin.cli.benchmarks.vae import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

"""Benchmark the VAE; the same as ``pvvae benchmark vae``.

python tools/benchmarks/vae.py [--device cuda] [--size SIZE] [--json FILE]
"""

import sys

from pvvae_plugin.cli.benchmarks.vae import main

if __name__ == '__main__':
    sys.exit(main())

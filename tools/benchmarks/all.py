"""Run every benchmark; the same as ``pvvae benchmark all``.

python tools/benchmarks/all.py --out DIR (--device cuda | --tiny)
"""

import sys

from pvvae_plugin.cli.benchmarks.all import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

"""Benchmark FVD and KVD; the same as ``pvvae benchmark video-metrics``.

python tools/benchmarks/video_metrics.py [--device cuda]
"""

import sys

from pvvae_plugin.cli.benchmarks.video_metrics import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

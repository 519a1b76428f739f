"""Measure class accuracy; the same as ``pvvae class-accuracy``.

python tools/analysis/class_accuracy.py CONFIG CHECKPOINT [--guidance-scale S] [--out JSON]
"""

import sys

from pvvae_plugin.cli.analysis.class_accuracy import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

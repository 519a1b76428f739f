"""Measure distances to damaged clips; the same as ``pvvae metric-sensitivity``.

python tools/analysis/metric_sensitivity.py VIDEOS ... [--metrics NAME ...] [--out JSON]
"""

import sys

from pvvae_plugin.cli.analysis.metric_sensitivity import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

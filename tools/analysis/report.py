"""Print the metrics of a test; the same as ``pvvae report``.

python tools/analysis/report.py METRICS.json [--max-ratio R]
"""

import sys

from pvvae_plugin.cli.analysis.report import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

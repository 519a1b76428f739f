"""Plot the logs of a run; the same as ``pvvae plot-logs``.

python tools/analysis/plot_logs.py WORK_DIR --panel KEY ... [--out PNG]
"""

import sys

from pvvae_plugin.cli.analysis.plot_logs import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

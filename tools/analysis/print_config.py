"""Print a config; the same as ``pvvae print-config``.

python tools/analysis/print_config.py CONFIG [--cfg-options K=V ...] [--out FILE]
"""

import sys

from pvvae_plugin.cli.analysis.print_config import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

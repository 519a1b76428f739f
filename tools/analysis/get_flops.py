"""Count parameters and FLOPs; the same as ``pvvae get-flops``.

python tools/analysis/get_flops.py CONFIG [--clip T H W]
"""

import sys

from pvvae_plugin.cli.analysis.get_flops import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

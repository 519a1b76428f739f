"""Plot latents; the same as ``pvvae latents``.

python tools/analysis/latents.py MODEL [CHECKPOINT] --videos PATH ... --out DIR
"""

import sys

from pvvae_plugin.cli.analysis.latents import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

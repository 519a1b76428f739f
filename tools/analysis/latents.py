"""Plot latents; the same as ``pvvae latents``.

python tools/analysis/latents.py MODEL [CHECKPOINT] --videos PATH ... --out DIR
"""

import sys

from pvvae_plugin.cli.analysis.latents import main

if __name__ == '__main__':
    sys.exit(main())

"""Export a trained VAE; the same as ``pvvae export``.

python tools/export_vae.py CONFIG CHECKPOINT OUT_DIR
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.export import main

if __name__ == '__main__':
    sys.exit(start(main))

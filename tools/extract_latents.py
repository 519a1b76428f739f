"""Encode a dataset once; the same as ``pvvae extract-latents``.

python tools/extract_latents.py CONFIG CHECKPOINT OUT_DIR [--split SPLIT] [--flip]
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.extract_latents import main

if __name__ == '__main__':
    sys.exit(start(main))

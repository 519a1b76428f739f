"""Initialize a video VAE from an image VAE; the same as ``pvvae inflate``.

python tools/inflate_vae.py CONFIG WEIGHTS OUT_DIR [--rename OLD=NEW ...]
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.inflate import main

if __name__ == '__main__':
    sys.exit(start(main))

"""Serve a local web page; the same as ``pvvae web``.

python tools/web_demo.py [--vae CONFIG CHECKPOINT] [--generator CONFIG CHECKPOINT]
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.web import main

if __name__ == '__main__':
    sys.exit(start(main))

"""Probe latents; the same as ``pvvae probe-latents``.

python tools/analysis/probe_latents.py CONFIG CHECKPOINT --out DIR
"""

import sys

from pvvae_plugin.cli.analysis.probe_latents import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

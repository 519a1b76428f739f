"""Compare two sets of videos; the same as ``pvvae evaluate``.

python tools/evaluate_videos.py REAL FAKE [--metrics NAME ...] [--protocol NAME] [--out JSON]
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.evaluate import main

if __name__ == '__main__':
    sys.exit(start(main))

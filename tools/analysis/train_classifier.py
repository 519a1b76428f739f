"""Train a classifier of clips; the same as ``pvvae train-classifier``.

python tools/analysis/train_classifier.py CONFIG --out FILE.pth
"""

import sys

from pvvae_plugin.cli.analysis.train_classifier import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

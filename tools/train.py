"""Train a model; the same as ``pvvae train``.

python tools/train.py CONFIG [--work-dir DIR] [--resume [CKPT]] [--cfg-options K=V ...]
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.train import main

if __name__ == '__main__':
    sys.exit(start(main))

"""Check the videos of a dataset; the same as ``pvvae verify``.

python tools/verify_dataset.py CONFIG_OR_FOLDER [--out JSON] [--write-list FILE]
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.verify import main

if __name__ == '__main__':
    sys.exit(start(main))

"""Check UCF101 and write its lists; the same as ``pvvae convert-ucf101``.

python tools/dataset_converters/ucf101.py --videos DIR --splits DIR [--out DIR]
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.converters.ucf101 import main

if __name__ == '__main__':
    sys.exit(start(main))

"""Write the lists of RealEstate10K; the same as ``pvvae convert-realestate10k``.

python tools/dataset_converters/realestate10k.py --cameras DIR --videos DIR --out DIR
"""

import sys

from pvvae_plugin.cli.console import start
from pvvae_plugin.cli.converters.realestate10k import main

if __name__ == '__main__':
    sys.exit(start(main))

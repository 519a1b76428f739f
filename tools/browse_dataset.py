"""Save pictures of clips; the same as ``pvvae browse``.

python tools/browse_dataset.py CONFIG [--split SPLIT] [--num N] [--out-dir DIR]
"""

import sys

from pvvae_plugin.cli.browse import main
from pvvae_plugin.cli.console import start

if __name__ == '__main__':
    sys.exit(start(main))

"""``python -m pvvae_plugin COMMAND``, for launchers that start a module: ``torchrun -m pvvae_plugin sample ...``."""

import sys

from pvvae_plugin.cli import main

if __name__ == '__main__':
    sys.exit(main())

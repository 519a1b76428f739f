"""Run the study: ``python -m projects.predictive_study --scale tiny --out DIR``."""

import sys

from .study import main

if __name__ == '__main__':
    sys.exit(main())

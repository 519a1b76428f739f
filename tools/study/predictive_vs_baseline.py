"""Run ``python -m projects.predictive_study`` with the same arguments, from any working directory."""

import os
import sys
from pathlib import Path

if __name__ == '__main__':
    path = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[2]), os.environ.get('PYTHONPATH')]))
    command = [sys.executable, '-m', 'projects.predictive_study', *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, 'PYTHONPATH': path})

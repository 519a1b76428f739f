#!/usr/bin/env bash
# Lint and test, in a virtual environment of its own making. Arguments go to pytest.
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env mmcv,dev
ruff check .
ruff format --check .
exec python -m pytest "$@"

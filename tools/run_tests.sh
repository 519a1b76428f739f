#!/usr/bin/env bash
# Lint and test in a virtual environment that is created on first use. Arguments are passed to pytest.
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env mmcv,dev
ruff check .
ruff format --check .
# Two processes with one thread each: tests are small, and many start subprocesses.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Stealing keeps both busy to the end; tests of one file stay together until then.
exec python -m pytest -n 2 --dist worksteal "$@"

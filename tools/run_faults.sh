#!/usr/bin/env bash
# Run the fault tests (kill runs, damage files, fill disks: docs/reliability.md) and all other long tests. Arguments are passed to pytest.
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env mmcv,dev
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
python -m pytest -n 2 --dist loadfile tests/faults -m "long or not long" "$@"
# Long tests of other areas: whole runs of several processes, an installed wheel, the study.
exec python -m pytest -n 2 --dist loadfile tests projects -m long --ignore tests/faults "$@"

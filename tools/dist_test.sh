#!/usr/bin/env bash
# Evaluate on several GPUs, or in several CPU processes on a machine without GPUs.
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py ...]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. One node: a free port is selected.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: bash $0 CONFIG CHECKPOINT GPUS [ARGS ...]" >&2; exit 2; }
config=$1 checkpoint=$2 gpus=$3
shift 3
exec python "$(dirname "$0")/launch.py" "$gpus" "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"

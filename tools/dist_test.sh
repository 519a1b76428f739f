#!/usr/bin/env bash
# Evaluate on several GPUs, or several CPU processes where there is no GPU.
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py ...]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. On one, a free port is found.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: bash $0 CONFIG CHECKPOINT GPUS [ARGS ...]" >&2; exit 2; }
config=$1 checkpoint=$2 gpus=$3
shift 3
exec python "$(dirname "$0")/launch.py" "$gpus" "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"

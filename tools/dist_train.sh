#!/usr/bin/env bash
# Train on several GPUs, or in several CPU processes on a machine without GPUs.
#   bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py ...]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. One node: a free port is selected.
# SIGTERM or SIGUSR1 saves the state and exits with code 75; run the same command with --resume to continue.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash $0 CONFIG GPUS [ARGS ...]" >&2; exit 2; }
config=$1 gpus=$2
shift 2
exec python "$(dirname "$0")/launch.py" "$gpus" "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"

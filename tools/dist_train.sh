#!/usr/bin/env bash
# Train on several GPUs, or several CPU processes where there is no GPU.
#   bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py ...]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each. On one, a free port is found.
# SIGTERM or SIGUSR1: the state is saved, the exit code is 75; the same command with --resume goes on.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash $0 CONFIG GPUS [ARGS ...]" >&2; exit 2; }
config=$1 gpus=$2
shift 2
exec python "$(dirname "$0")/launch.py" "$gpus" "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"

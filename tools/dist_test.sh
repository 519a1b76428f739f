#!/usr/bin/env bash
# Evaluate on several GPUs, or several CPU processes where there is no GPU.
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py ...]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: bash $0 CONFIG CHECKPOINT GPUS [ARGS ...]" >&2; exit 2; }
config=$1 checkpoint=$2 gpus=$3
shift 3
exec torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"

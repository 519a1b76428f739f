#!/usr/bin/env bash
# Train on several GPUs, or several CPU processes where there is no GPU.
#   bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py ...]
# Several nodes: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash $0 CONFIG GPUS [ARGS ...]" >&2; exit 2; }
config=$1 gpus=$2
shift 2
exec torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"

#!/usr/bin/env bash
# Train under Slurm.
#   GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=8 bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of train.py ...]
# SRUN_ARGS: additional arguments for srun.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: [GPUS=8] bash $0 PARTITION JOB_NAME CONFIG [ARGS ...]" >&2; exit 2; }
partition=$1 job_name=$2 config=$3
shift 3
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8}
[ "$gpus" -ge "$per_node" ] || per_node=$gpus
# shellcheck disable=SC2086  # SRUN_ARGS is a list of words
exec srun -p "$partition" --job-name="$job_name" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"

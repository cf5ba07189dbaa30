#!/usr/bin/env bash
# Evaluates on a Slurm cluster, one process for each GPU.
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT GPUS [flags of tools/test.py]
# GPUS counts those of all machines. GPUS_PER_NODE (8, or fewer if GPUS is less), CPUS_PER_TASK (5),
# PORT (29500) and SRUN_ARGS (further arguments of srun) can be set.
set -euo pipefail

if [[ ! ${5-} =~ ^[1-9][0-9]{0,4}$ ]]; then
    [ $# -lt 5 ] || echo "error: GPUS is '$5', not a number from 1 to 99999" >&2
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT GPUS [flags of tools/test.py]" >&2
    exit 2
fi

gpus_per_node=${GPUS_PER_NODE:-$(($5 < 8 ? $5 : 8))}
export MASTER_PORT="${PORT:-29500}"

# SRUN_ARGS is several words
# shellcheck disable=SC2086
exec srun --partition="$1" --job-name="$2" \
    --ntasks="$5" --ntasks-per-node="$gpus_per_node" --gres="gpu:$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/test.py" "$3" "$4" --launcher slurm "${@:6}"

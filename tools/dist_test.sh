#!/usr/bin/env bash
# Evaluates with one process for each GPU of this machine (without CUDA: that many CPU processes).
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [flags of tools/test.py]
# Several machines: start it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set, and the same
# GPUS, in a folder that all of them share.
set -euo pipefail

if [[ ! ${3-} =~ ^[1-9][0-9]{0,4}$ ]]; then
    [ $# -lt 3 ] || echo "error: GPUS is '$3', not a number from 1 to 99999" >&2
    echo "usage: $0 CONFIG CHECKPOINT GPUS [flags of tools/test.py]" >&2
    exit 2
fi

# machines have to know where they meet; one takes any port that is free
port=29500
[ "${NNODES:-1}" != 1 ] || port=0

exec "${PYTHON:-python}" -m attnpool_backbones.launching.processes \
    --nnodes="${NNODES:-1}" \
    --node-rank="${NODE_RANK:-0}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" \
    --master-port="${PORT:-$port}" \
    --nproc-per-node="$3" \
    "$(dirname "$0")/test.py" "$1" "$2" --launcher pytorch "${@:4}"

#!/usr/bin/env bash
# Trains with one process for each GPU of this machine (without CUDA: that many CPU processes).
#   tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
# Several machines: start it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set, and the same
# GPUS, in a folder that all of them share.
set -euo pipefail

if [[ ! ${2-} =~ ^[1-9][0-9]{0,4}$ ]]; then
    [ $# -lt 2 ] || echo "error: GPUS is '$2', not a number from 1 to 99999" >&2
    echo "usage: $0 CONFIG GPUS [flags of tools/train.py]" >&2
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
    --nproc-per-node="$2" \
    "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"

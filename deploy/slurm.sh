#!/usr/bin/env bash
# A job on a Slurm cluster: one Ray node per Slurm node, the driver on the first one.
#   sbatch --nodes 4 --gpus-per-node 8 deploy/slurm.sh specs/k12_grid.yaml --profile paper
# The environment (.venv, from `make install`), ORCHESTRATOR_RUNS and DATA_ROOT must be on storage that every node sees.
# If ORCHESTRATOR_RUNS is on NFS, set DATABASE_URL to a PostgreSQL, because SQLite is refused there.
# Slurm's time limit sends SIGTERM two minutes early: running trials write checkpoints; submit again to resume.
#SBATCH --job-name=orchestrator
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --signal=B:TERM@120
set -euo pipefail

: "${1:?usage: sbatch deploy/slurm.sh SPEC [--profile NAME ...]}"
bin="$PWD/.venv/bin"
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="${ORCHESTRATOR_RUNS:-$PWD/runs}/ray-token"
mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
(umask 077; [ -s "$RAY_AUTH_TOKEN_PATH" ] || "$bin/python" -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH")

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000))
address="${hosts[0]}:$port"

srun --nodes 1 --ntasks 1 --overlap -w "${hosts[0]}" \
    "$bin/ray" start --head --port "$port" --dashboard-host 127.0.0.1 --block &
if [ "${#hosts[@]}" -gt 1 ]; then
    sleep 15
    srun --nodes $((${#hosts[@]} - 1)) --ntasks $((${#hosts[@]} - 1)) --overlap -x "${hosts[0]}" \
        "$bin/ray" start --address "$address" --block &
fi
sleep 15

# The code is on shared storage already: --no-ship.
"$bin/python" -m orchestrator submit "$@" --address "$address" --no-ship --quiet &
driver=$!
trap 'kill -TERM "$driver"' TERM
code=0
wait "$driver" || code=$?
if kill -0 "$driver" 2>/dev/null; then  # the trap ended the first wait: wait until the checkpoints are written
    code=0
    wait "$driver" || code=$?
fi
exit "$code"

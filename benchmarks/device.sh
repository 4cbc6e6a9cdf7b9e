#!/usr/bin/env bash
# All that wants a GPU, in under eight minutes: CUDA tests, the tables of costs, and a short proof of quality.
# Usage: benchmarks/device.sh OUT [VAL] - tables go to OUT, VAL is a folder of photographs that nothing trained on.
# Wants: pip install -e ".[test,cvvdp]" && perceptloss weights fetch lpips-alex st-lpips-alex --from pip
set -uo pipefail
cd "$(dirname "$0")/.."
out=$1 val=${2:-}
mkdir -p "$out"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv > "$out/card.csv"
step() { # step SECONDS NAME COMMAND...: what runs out of time does not stop the rest
  local limit=$1 name=$2
  shift 2
  timeout "$limit" "$@" > "$out/$name.txt" 2>&1
  echo "$name: exit $?, $SECONDS s so far" | tee -a "$out/steps.txt"
}
step 80 smoke python -m pytest -q -m smoke -p no:cacheprovider
step 50 costs python -m benchmarks costs --device cuda --repeat 3 --json "$out/costs.json"
step 30 precision python -m benchmarks precision --device cuda
step 90 training-steps python -m benchmarks steps --device cuda --json "$out/training-steps.json"
step 60 critics python -m benchmarks critics --device cuda --repeat 2 --json "$out/critics.json"
if [ -n "$val" ]; then
  step 165 quality python -m benchmarks quality --val "$val" --runs "$out/runs" --steps 700 --seed 0 \
    --loss l1 --loss lpips-squeeze --loss joint --loss "joint, 0.25 dB" --json "$out/quality.json"
fi
cat "$out/steps.txt"

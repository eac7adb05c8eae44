#!/usr/bin/env bash
# The tests, from a fresh clone: environment, install, run. --all adds what needs PyTorch,
# TensorFlow or minutes; --faults kills runs, takes their disk away, damages their checkpoints,
# reads hostile files and trains for 20,000 steps instead, and prints tables of it (half an hour).
# What needs pictures and weights beside the repository reads SR_JAX_ASSETS.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

if [ "${1:-}" = --all ]; then
  shift
  install_requirements requirements.txt tests/requirements-all.txt
  ruff check .
  exec python -m pytest "$@"
fi
if [ "${1:-}" = --faults ]; then
  status=0
  for kind in kill disk damage fuzz long; do
    echo "== tests/faults/$kind.py"
    python -m "tests.faults.$kind" || status=1
  done
  exit "$status"
fi
exec python -m pytest -m 'not slow' "$@"

#!/usr/bin/env bash
# The tests, from a fresh clone: environment, install, run. --all adds what needs PyTorch,
# TensorFlow or minutes; --faults kills runs, takes their disk away, damages their checkpoints,
# reads hostile files and trains for 20,000 steps instead, and prints tables of it (half an hour).
# Tests that need images and weights from outside the repository find them through SR_JAX_ASSETS.
# One worker a core runs the tests, at most four (TEST_WORKERS); SR_JAX_TEST_CACHE names a folder
# that keeps what XLA compiled for the next run.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

workers=${TEST_WORKERS:-$(python -c 'import os; print(min(4, len(os.sched_getaffinity(0))
                                                      if hasattr(os, "sched_getaffinity")
                                                      else os.cpu_count()))')}
run_tests() { exec python -m pytest -n "$workers" --dist worksteal "$@"; }

if [ "${1:-}" = --all ]; then
  shift
  install_requirements requirements.txt tests/requirements-all.txt
  ruff check .
  run_tests "$@"
fi
if [ "${1:-}" = --faults ]; then
  status=0
  for kind in kill disk damage fuzz long; do
    echo "== tests/faults/$kind.py"
    python -m "tests.faults.$kind" || status=1
  done
  exit "$status"
fi
run_tests -m 'not slow' "$@"

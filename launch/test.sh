#!/usr/bin/env bash
# Runs the tests, from a fresh clone: makes the environment, installs what the tests need, runs pytest.
#
#   bash launch/test.sh            the core tests
#   bash launch/test.sh --all      also those that need PyTorch, TensorFlow, a browser or minutes
#   bash launch/test.sh --faults   instead kills runs, fills their disk, damages their checkpoints,
#                                  reads malicious files and trains for 20,000 steps, and prints
#                                  tables of the results (half an hour)
#
# Further arguments are passed to pytest (not with --faults). Environment variables:
#   SR_JAX_ASSETS       folder of images and weights that are not in the repository; tests that need
#                       them are skipped without it
#   TEST_WORKERS        number of test processes; by default one more than cores, which are often idle
#                       while processes start, but at most four
#   SR_JAX_TEST_CACHE   folder that keeps the programs that XLA compiled for the next run
#   SR_JAX_TEST_OPTIMISED=1   compiles everything as a user's run does, which takes longer
set -euo pipefail
source "$(dirname "$0")/environment.sh"

cores=$(python -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                                    else os.cpu_count())')
workers=${TEST_WORKERS:-$((cores < 4 ? cores + 1 : 4))}
run_tests() { exec python -m pytest -n "$workers" --dist worksteal "$@"; }

if [ "${1:-}" = --all ]; then
  shift
  install -e '.[test,app,wandb]' -r tests/requirements-all.txt
  ruff check .
  run_tests "$@"
fi
install -e '.[test]'
if [ "${1:-}" = --faults ]; then
  status=0
  for kind in kill disk damage fuzz long; do
    echo "== tests/faults/$kind.py"
    python -m "tests.faults.$kind" || status=1
  done
  exit "$status"
fi
run_tests -m 'not slow' "$@"

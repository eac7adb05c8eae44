#!/usr/bin/env bash
# The tests, from a fresh clone: environment, install, run. --all adds what needs PyTorch,
# TensorFlow or minutes. What needs pictures and weights beside the repository reads SR_JAX_ASSETS.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

if [ "${1:-}" = --all ]; then
  shift
  install_requirements requirements.txt tests/requirements-all.txt
  ruff check .
  exec python -m pytest "$@"
fi
exec python -m pytest -m 'not slow' "$@"

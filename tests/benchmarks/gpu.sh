#!/usr/bin/env bash
# Measures sr_jax on a machine with a GPU, in at most ten minutes, and writes one JSON file.
#
#   SR_JAX_ASSETS=FOLDER bash tests/benchmarks/gpu.sh [--output FOLDER] [--only STAGE ...]
#
# Nothing is downloaded. Environment variables:
#   PYTHON          the Python that has JAX, and PyTorch for the comparison; by default python3
#   SR_JAX_ASSETS   folder with the images that are trained on, BSDS500, and Set5 for the PSNR
#
# tests/benchmarks/gpu.py explains the stages, its options and the JSON file.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m tests.benchmarks.gpu "$@"

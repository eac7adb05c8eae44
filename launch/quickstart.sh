#!/usr/bin/env bash
# From a fresh clone: environment, install, SRGAN on the pictures inside scikit-image,
# evaluation. Minutes on two CPU cores; the package index is the only host asked.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

run=runs/srgan-sample
python -m sr_jax.main --config configs/srgan.py:sample --workdir "$run"
python -m sr_jax.main --config configs/srgan.py:sample --workdir "$run" --mode evaluate

echo
echo "All of it to look at, one page:                           $run/report.html"
echo "Strips low / bicubic / generated / original through time: $run/samples"
echo "The held-out picture, enlarged:                           $run/eval"
echo "Curves:  .venv/bin/pip install tensorboard && .venv/bin/tensorboard --logdir $run/tensorboard"

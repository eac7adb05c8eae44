#!/usr/bin/env bash
# Works from a fresh clone: makes the environment, installs the package, trains SRGAN on the
# images inside scikit-image and evaluates it. Takes minutes on two CPU cores; the only host that it
# contacts is the package index.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

run=runs/srgan-sample
sr-jax train --config srgan:sample --workdir "$run"
sr-jax evaluate --workdir "$run"

echo
echo "Report of the run, one HTML page:                         $run/report.html"
echo "LR, bicubic, SR and HR side by side, every 100 steps:     $run/samples"
echo "The upscaled validation image, with its scores:           $run/eval"
echo "Curves:  .venv/bin/pip install tensorboard && .venv/bin/tensorboard --logdir $run/tensorboard"

"""Compares what an exported file computes by its own runtime with what sr_jax computes."""

import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from sr_jax import images
from sr_jax.metrics.psnr_ssim import image_psnr
from sr_jax.pretrained.export import tracing

Run = Callable[[np.ndarray], np.ndarray]  # float32 [h, w, C] in [0, 1] to [h * s, w * s, C]


def own_run(generator: nn.Module, variables: dict[str, Any]) -> Run:
  """Returns a function that computes what a file of a network does, compiled for each size."""
  apply = jax.jit(functools.partial(tracing.apply, generator))
  return lambda lr: np.asarray(apply(variables, lr[None])[0])


def compare(run: Run, generator: nn.Module, variables: dict[str, Any],
            photos: Sequence[pathlib.Path]) -> list[str]:
  """Returns lines of a table: differences and times for each image.

  Args:
    run: by the file's runtime.
    generator, variables: that were exported.
    photos: image files; a network of one channel gets the mean of R, G and B.
  """
  own, channels = own_run(generator, variables), tracing.channels_of(generator)
  width = max(len(path.name) for path in photos)
  lines = ['image'.ljust(width) + '       size  largest difference   PSNR (8 bits)  seconds'
           '  sr_jax']
  for path in photos:
    lr = images.to_float(images.as_rgb(images.read_image(path)))
    lr = np.float32(lr if channels == 3 else lr.mean(-1, keepdims=True))
    own(lr)  # compiles
    (theirs, seconds), (ours, own_seconds) = (_timed(call, lr) for call in (run, own))
    size = f'{lr.shape[1]}x{lr.shape[0]}'
    if theirs.shape != ours.shape:
      lines.append(f'{path.name.ljust(width)}  {size:>9}  has the size {theirs.shape}, expected '
                   f'{ours.shape}')
      continue
    difference = float(np.abs(theirs - ours).max())  # NaN stays NaN
    psnr = image_psnr(*(images.to_uint8(np.nan_to_num(x)) for x in (theirs, ours)))
    lines.append(f'{path.name.ljust(width)}  {size:>9}  {difference:18.2e}  {psnr:11.2f} dB  '
                 f'{seconds:7.3f}  {own_seconds:6.3f}')
  return lines


def _timed(call: Run, lr: np.ndarray) -> tuple[np.ndarray, float]:
  start = time.monotonic()
  return call(lr), time.monotonic() - start

"""Train, evaluate and apply super-resolution networks in JAX and Flax."""

import os
import typing
from typing import Any

__version__ = '0.1.0'

if typing.TYPE_CHECKING:
  from sr_jax.restore import Model


def load(source: os.PathLike | str, *, step: str | int = 'latest', raw: bool = False,
         wrapper: str = '', fields: dict[str, Any] | None = None) -> 'Model':
  """Loads a network with its weights.

    sr = sr_jax.load('runs/srgan')(lr)

  Args:
    source: the folder of a run; a `.safetensors`, `.pth` or ncnn file; or the name of a
      published network, such as 'realesrgan-x4plus'.
    step: for a run, the step of a checkpoint, 'latest' or 'best'.
    raw: for a run, loads the weights instead of their exponential moving average (EMA).
    wrapper: for a `.pth`, the key of the state dict in the file.
    fields: for a file, fields of the network that it does not determine, such as
      {'residual_scale': 0.1}.

  Returns:
    A `restore.Model`: a function of a NumPy image, [h, w, 3], [h, w, 1] or [h, w], uint8,
    uint16 or float32 in [0, 1], that returns the image upscaled by `.scale`.

  Raises:
    InputError: a ValueError with a one-line message that names the file, the tensor and the
      expected shape.
  """
  from sr_jax import restore  # imported here so that importing the package does not import JAX
  return restore.load(source, step=step, raw=raw, wrapper=wrapper, fields=fields)

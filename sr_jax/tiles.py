"""Large pictures in the memory there is, without a seam: sr = Upscaler(...)(lr)."""

import jax
import numpy as np

from sr_jax import images


class Upscaler:
  """sr = upscaler(lr): a generator as a function of pictures of any size.

  lr is NumPy [h, w, C] or, several of one size, [B, h, w, C], C 1 or 3; uint8, uint16 or
  float32 in [0, 1]. sr is of the same kind, `scale` times larger; grey stays grey.

  Args:
    tile: side of the tiles in LR pixels; None, as the memory allows.
    memory: bytes that may be used; None, what the device has free.
  """

  def __init__(self, generator, variables, *, tile: int | None = None,
               memory: int | None = None):
    self.generator, self.variables, self.scale = generator, variables, generator.scale
    self._forward = jax.jit(generator.apply)

  def __call__(self, lr: np.ndarray) -> np.ndarray:
    most = {'uint8': 255, 'uint16': 65535}.get(lr.dtype.name)
    batch = lr if lr.ndim == 4 else lr[None]
    x = images.as_rgb(np.float32(batch) / np.float32(most or 1))
    sr = np.asarray(self._forward(self.variables, x))
    if lr.shape[-1] == 1:
      sr = sr.mean(-1, keepdims=True)
    sr = np.float32(sr) if most is None else np.floor(
        np.clip(sr, 0, 1) * most + 0.5).astype(lr.dtype)
    return sr if lr.ndim == 4 else sr[0]


def ensemble(upscale, lr: np.ndarray) -> np.ndarray:
  """The mean of `upscale` over the eight turns and reflections of lr [h, w, C]."""
  raise NotImplementedError

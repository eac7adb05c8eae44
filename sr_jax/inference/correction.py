"""Correction: samples of SR that stray too far from an interpolation of LR are replaced by it.

A network that is hardly trained, or that was broken, paints aberrant pixels; plain bilinear
interpolation never does. Where a trained network rightly differs from bilinear, at edges and
in fine texture, correction takes what it was trained for away again.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def _replace(deviation, threshold):
  return jnp.where(deviation <= threshold, 1.0, 0.0)


def _smooth(deviation, threshold):
  # A threshold of 0 leaves nothing to fade over: whatever deviates is replaced.
  beyond = (deviation - threshold) / jnp.maximum(threshold, jnp.finfo(threshold.dtype).tiny)
  u = jnp.clip(beyond, 0, 1)
  return 1 - u * u * (3 - 2 * u)


KINDS = {'replace': _replace, 'smooth': _smooth}  # the share of SR that is kept


@functools.partial(jax.jit, static_argnames='kind')
def correct(sr, enlarged, thresholds, kind: str = 'replace') -> jax.Array:
  """share * sr + (1 - share) * enlarged, each sample by itself.

  With d = |sr - enlarged| and the channel's threshold t, the share of SR is

    replace: 1 where d <= t, else 0
    smooth: 1 - s((d - t) / t) with the smoothstep s(u) = u^2 (3 - 2 u), u clipped to [0, 1]:
      1 up to t, 0 from 2 t on, in between a fade without a step or a kink

  Where the share is 1 or 0, and so everywhere with 'replace', the result has the bits of
  one or the other. A sample that is no number is replaced.

  Args:
    sr: [..., H, W, C], float in [0, 1] (NumPy or JAX).
    enlarged: the bilinear upscale of LR, of the same shape.
    thresholds: one for each channel, in [0, 1], or one for all. Of a grey picture the mean
      of those given counts.
    kind: in `KINDS`.

  Returns:
    As sr, on the device.

  Raises:
    ValueError: an unknown kind; shapes that differ, integers, as many thresholds as there
      are neither channels nor one.
  """
  if kind not in KINDS:
    raise ValueError(f'kind={kind!r}: expected one of {", ".join(KINDS)}')
  if sr.shape != enlarged.shape:
    raise ValueError(f'pictures of different shapes: {sr.shape} and {enlarged.shape}')
  if not jnp.issubdtype(sr.dtype, jnp.floating):
    raise ValueError(f'a picture of {sr.dtype}: expected float in [0, 1]')
  thresholds, channels = jnp.atleast_1d(jnp.asarray(thresholds, sr.dtype)), sr.shape[-1]
  if channels == 1:
    thresholds = thresholds.mean()
  elif thresholds.shape not in ((1,), (channels,)):
    raise ValueError(f'{thresholds.shape[0]} thresholds of {channels} channels')
  share = KINDS[kind](jnp.abs(sr - enlarged), thresholds)
  return jnp.where(share > 0, share * sr + (1 - share) * enlarged, enlarged)


def describe(thresholds: Sequence[float], kind: str) -> str:
  """What a protocol says of corrected pictures."""
  limits = ', '.join(f'{threshold:g}' for threshold in thresholds)
  limits += ' (R, G, B; of grey the mean)' if len(thresholds) > 1 else ''
  become = {'replace': "are bilinear's", 'smooth': 'fade into it, which they are at twice that'}
  return f'{kind}: the model, but samples further from bilinear than {limits} {become[kind]}'

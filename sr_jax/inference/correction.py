"""Correction: replaces samples of SR that deviate too far from bilinear interpolation of LR.

A network that is barely trained or damaged produces aberrant pixels; bilinear interpolation never
does. Where a trained network rightly differs from bilinear interpolation, at edges and in fine
texture, correction removes what the network has learnt.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def _replace(deviation: jax.Array, threshold: jax.Array) -> jax.Array:
  return jnp.where(deviation <= threshold, 1.0, 0.0)


def _smooth(deviation: jax.Array, threshold: jax.Array) -> jax.Array:
  # With a threshold of 0 there is no range to fade over: every deviating sample is replaced.
  beyond = (deviation - threshold) / jnp.maximum(threshold, jnp.finfo(threshold.dtype).tiny)
  u = jnp.clip(beyond, 0, 1)
  return 1 - u * u * (3 - 2 * u)


# Functions (deviation, threshold) -> the weight of SR, from 0 to 1.
KINDS = {'replace': _replace, 'smooth': _smooth}


@functools.partial(jax.jit, static_argnames='kind')
def correct(sr: jax.Array, bilinear: jax.Array, thresholds: jax.typing.ArrayLike,
            kind: str = 'replace') -> jax.Array:
  """Returns weight * sr + (1 - weight) * bilinear, for each sample by itself.

  With d = |sr - bilinear| and the channel's threshold t, the weight of SR is

    replace: 1 where d <= t, else 0
    smooth: 1 - s((d - t) / t) with the smoothstep s(u) = u^2 (3 - 2 u), u clipped to [0, 1]:
      1 up to t, 0 from 2 t on, with a continuous slope in between

  Where the weight is 1 or 0, which is everywhere with 'replace', the result is bit for bit that
  of `sr` or of `bilinear`. Non-finite samples (NaN/Inf) are replaced.

  Args:
    sr: [..., H, W, C], float in [0, 1] (NumPy or JAX).
    bilinear: LR upscaled by bilinear interpolation, of the same shape.
    thresholds: one for each channel, in [0, 1], or one for all. A grey image uses their mean.
    kind: a key of `KINDS`.

  Returns:
    An array of sr's shape and dtype, on the device.

  Raises:
    ValueError: `kind` is unknown, the shapes differ, the images are not float, or the number of
      thresholds is neither one nor the number of channels.
  """
  if kind not in KINDS:
    raise ValueError(f'kind={kind!r}: expected one of {", ".join(KINDS)}')
  if sr.shape != bilinear.shape:
    raise ValueError(f'sr and bilinear have different shapes: {sr.shape} and {bilinear.shape}')
  if not jnp.issubdtype(sr.dtype, jnp.floating):
    raise ValueError(f'sr has dtype {sr.dtype}, expected float in [0, 1]')
  thresholds, channels = jnp.atleast_1d(jnp.asarray(thresholds, sr.dtype)), sr.shape[-1]
  if channels == 1:
    thresholds = thresholds.mean()
  elif thresholds.shape not in ((1,), (channels,)):
    raise ValueError(f'got {thresholds.shape[0]} thresholds for {channels} channels, expected 1 '
                     f'or {channels}')
  weight = KINDS[kind](jnp.abs(sr - bilinear), thresholds)
  return jnp.where(weight > 0, weight * sr + (1 - weight) * bilinear, bilinear)


def describe(thresholds: Sequence[float], kind: str) -> str:
  """Describes the method 'corrected' in one line, for tables of scores."""
  limits = ', '.join(f'{threshold:g}' for threshold in thresholds)
  limits += ' (R, G, B; their mean for grey images)' if len(thresholds) > 1 else ''
  effect = {'replace': 'are replaced by bilinear interpolation',
            'smooth': 'fade into bilinear interpolation, completely at twice that deviation'}
  return (f'{kind}: the model, but samples that deviate from bilinear interpolation by more than '
          f'{limits} {effect[kind]}')

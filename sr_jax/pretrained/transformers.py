"""What the weight files of SwinIR and DAT have in common."""

import functools

import numpy as np
from flax import linen as nn

from sr_jax.models.attention import MASKED, Pair, regions, split_windows


def residual_names(ours: str, theirs: str, generator: nn.Module) -> dict[str, str]:
  """Maps the layers of a `ResidualConv` to the authors', which count activations, too."""
  if generator.residual_conv == '1conv':
    return {f'{ours}/Conv_0': theirs}
  return {f'{ours}/Conv_{index}': f'{theirs}.{2 * index}' for index in range(3)}


@functools.lru_cache(maxsize=4)
def mask(sides: Pair, window: Pair) -> np.ndarray:
  """Returns what is added to the logits of windows that are shifted by half of their sides.

  Args:
    sides: height and width of an image.
    window: rows and columns.

  Returns:
    float32 [windows, N, N] for queries and keys of N = rows * columns pixels.
  """
  labels = np.asarray(regions(sides, window, (window[0] // 2, window[1] // 2)))
  labels = split_windows(labels[None], window)[0]
  return np.where(labels[:, :, None] == labels[:, None], np.float32(0), np.float32(MASKED))

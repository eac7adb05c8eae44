"""Back-projection: SR whose bicubic reduction is the LR that it came from.

A network may shift colours and low frequencies, which LR knows better. What SR, made small again,
lacks of LR is enlarged and added, some times over (Irani and Peleg 1991, "Improving resolution by
image registration"; of networks' results, Timofte et al. 2016, section 3.5).
"""

import numpy as np

from sr_jax import images


def backproject(sr: np.ndarray, lr: np.ndarray, times: int) -> np.ndarray:
  """sr + enlarged(lr - shrunk(sr)), so often; both by MATLAB's bicubic.

  What is left of lr - shrunk(sr) becomes less each time, details of SR that LR can't tell stay.

  Args:
    sr: float32 [h * s, w * s, C] in [0, 1].
    lr: float32 [h, w, C] in [0, 1].

  Returns:
    As sr, not clipped.
  """
  small, large = lr.shape[:2], sr.shape[:2]
  for _ in range(times):
    sr = sr + images.imresize(lr - images.imresize(sr, size=small), size=large)
  return sr

"""Colour: value ranges, luma, YCbCr."""

import jax.numpy as jnp
import numpy as np


def as_rgb(image: np.ndarray) -> np.ndarray:
  """[..., 1 or 3] to [..., 3]: grey is repeated (NumPy or JAX)."""
  return image.repeat(3, axis=-1) if image.shape[-1] == 1 else image


def to_float(image, most: int = 255):
  """Integers in [0, most] to float32 in [0, 1]; NumPy in, NumPy out, else a JAX array."""
  numpy = np if isinstance(image, np.ndarray) else jnp
  return numpy.asarray(image, numpy.float32) / numpy.float32(most)


def to_levels(image, most: int = 255):
  """Float in [0, 1], clipped, to the nearest of 0, 1, ... most, still float (NumPy or JAX)."""
  numpy = np if isinstance(image, np.ndarray) else jnp
  return numpy.floor(numpy.clip(image, 0, 1) * most + 0.5)


def to_uint8(image) -> np.ndarray:
  """`to_levels` as uint8 on the host."""
  with np.errstate(invalid='ignore'):  # nan has no colour; whoever trains is told by other means
    return np.uint8(to_levels(np.asarray(image, np.float32)))


# Y, Cb, Cr (rows) of R, G, B, and what is added, in 8-bit levels for RGB in [0, 1].
# MATLAB's rgb2ycbcr (ITU-R BT.601): Y in [16, 235], Cb and Cr in [16, 240].
_STUDIO = (np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]]),
           np.array([16, 128, 128]))
LUMA, BLACK = _STUDIO[0][0] / 255, 16 / 255  # Y is BLACK + R, G, B times LUMA
# JFIF, the YCbCr of JPEG files: the same luma weights, each channel over all 256 levels.
_FULL = (255 * np.array([[0.299, 0.587, 0.114],
                         [-0.299 / 1.772, -0.587 / 1.772, 0.5],
                         [0.5, -0.587 / 1.402, -0.114 / 1.402]]), np.array([0, 128, 128]))


def luma(image):
  """Y of MATLAB's rgb2ycbcr: (16 + 65.481 R + 128.553 G + 24.966 B) / 255.

  Args:
    image: [..., 3], float in [0, 1] (NumPy or JAX).

  Returns:
    [..., 1], float in [16 / 255, 235 / 255]; not rounded.
  """
  return sum(image[..., i:i + 1] * float(LUMA[i]) for i in range(3)) + BLACK


def rgb_to_ycbcr(image, full_range: bool = False):
  """RGB [..., 3] in [0, 1] to Y, Cb, Cr [..., 3] in [0, 1] (NumPy or JAX), not rounded.

  Args:
    full_range: False, MATLAB's rgb2ycbcr, whose Y is `luma`; True, JFIF's, as in JPEG files
      (its Cb and Cr reach 255.5 / 255, which files clip).
  """
  matrix, offset = _FULL if full_range else _STUDIO
  return _mix(image, matrix / 255, offset / 255)


def ycbcr_to_rgb(image, full_range: bool = False):
  """The inverse of `rgb_to_ycbcr`; not clipped: not every Y, Cb, Cr is a colour."""
  matrix, offset = _FULL if full_range else _STUDIO
  inverse = np.linalg.inv(matrix / 255)
  return _mix(image, inverse, -inverse @ (offset / 255))


def _mix(image, matrix, offset):
  """matrix @ pixel + offset, without a matrix product, which a GPU would take in TF32."""
  return sum(image[..., i:i + 1] * matrix[:, i].astype(image.dtype)
             for i in range(3)) + offset.astype(image.dtype)


def crop_to_multiple(image, scale: int):
  """Cuts rows and columns at the bottom and right so that `scale` divides [H, W, C]."""
  height, width = image.shape[0] // scale * scale, image.shape[1] // scale * scale
  return image[:height, :width]

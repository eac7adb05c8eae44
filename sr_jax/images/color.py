"""Value ranges, luma and YCbCr conversion."""

import jax
import jax.numpy as jnp
import numpy as np

Array = np.ndarray | jax.Array


def as_rgb(image: Array) -> Array:
  """Converts [..., 1 or 3] to [..., 3] by repeating grey (NumPy or JAX)."""
  return image.repeat(3, axis=-1) if image.shape[-1] == 1 else image


def to_float(image: Array, max_level: int = 255) -> Array:
  """Converts integers in [0, max_level] to float32 in [0, 1].

  Returns a NumPy array for a NumPy array, otherwise a JAX array.
  """
  numpy = np if isinstance(image, np.ndarray) else jnp
  return numpy.asarray(image, numpy.float32) / numpy.float32(max_level)


def to_levels(image: Array, max_level: int = 255) -> Array:
  """Clips float in [0, 1] and rounds it to the levels 0, 1, ... max_level, still as float.

  Returns a NumPy array for a NumPy array, otherwise a JAX array.
  """
  numpy = np if isinstance(image, np.ndarray) else jnp
  return numpy.floor(numpy.clip(image, 0, 1) * max_level + 0.5)


def to_uint8(image: Array) -> np.ndarray:
  """Returns `to_levels` of an image as uint8 on the host."""
  # NaN has no 8-bit value; training reports it by other means than this warning.
  with np.errstate(invalid='ignore'):
    return np.uint8(to_levels(np.asarray(image, np.float32)))


# A matrix from R, G, B in [0, 1] to Y, Cb, Cr (its rows), and the offset to add, in 8-bit levels.
# MATLAB's rgb2ycbcr (ITU-R BT.601): Y in [16, 235], Cb and Cr in [16, 240].
_STUDIO = (np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112], [112, -93.786, -18.214]]),
           np.array([16, 128, 128]))
LUMA, BLACK = _STUDIO[0][0] / 255, 16 / 255  # Y = BLACK + LUMA @ (R, G, B)
# JFIF, the YCbCr of JPEG files: the same luma weights, each channel over all 256 levels.
_FULL = (255 * np.array([[0.299, 0.587, 0.114],
                         [-0.299 / 1.772, -0.587 / 1.772, 0.5],
                         [0.5, -0.587 / 1.402, -0.114 / 1.402]]), np.array([0, 128, 128]))


def luma(image: Array) -> Array:
  """Computes Y of MATLAB's rgb2ycbcr: (16 + 65.481 R + 128.553 G + 24.966 B) / 255.

  Args:
    image: [..., 3], float in [0, 1] (NumPy or JAX).

  Returns:
    [..., 1], float in [16 / 255, 235 / 255]; not rounded.
  """
  return sum(image[..., i:i + 1] * float(LUMA[i]) for i in range(3)) + BLACK


def rgb_to_ycbcr(image: Array, full_range: bool = False) -> Array:
  """Converts RGB [..., 3] in [0, 1] to Y, Cb, Cr [..., 3] in [0, 1] (NumPy or JAX), not rounded.

  Args:
    image: [..., 3], float in [0, 1].
    full_range: False for MATLAB's rgb2ycbcr, whose Y is `luma`; True for JFIF, as in JPEG files
      (its Cb and Cr reach 255.5 / 255, which files clip).
  """
  matrix, offset = _FULL if full_range else _STUDIO
  return _affine(image, matrix / 255, offset / 255)


def ycbcr_to_rgb(image: Array, full_range: bool = False) -> Array:
  """Inverts `rgb_to_ycbcr`. The result is not clipped: not every Y, Cb, Cr is a colour."""
  matrix, offset = _FULL if full_range else _STUDIO
  inverse = np.linalg.inv(matrix / 255)
  return _affine(image, inverse, -inverse @ (offset / 255))


def _affine(image: Array, matrix: np.ndarray, offset: np.ndarray) -> Array:
  """Computes matrix @ pixel + offset without a matrix product, which a GPU computes in TF32."""
  return sum(image[..., i:i + 1] * matrix[:, i].astype(image.dtype)
             for i in range(3)) + offset.astype(image.dtype)


def crop_to_multiple(image: Array, scale: int) -> Array:
  """Crops [H, W, C] at the bottom and right so that `scale` divides H and W."""
  height, width = image.shape[0] // scale * scale, image.shape[1] // scale * scale
  return image[:height, :width]

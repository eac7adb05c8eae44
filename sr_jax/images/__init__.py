"""Images: files to arrays and back, colour conversion, and MATLAB's resize.

Between modules an image is float [..., H, W, C] in [0, 1]; only this package and the data bank
hold uint8. C is 3 (RGB) or 1 (grey).
"""

from sr_jax.images.color import (
  BLACK,
  LUMA,
  as_rgb,
  crop_to_multiple,
  luma,
  rgb_to_ycbcr,
  to_float,
  to_levels,
  to_uint8,
  ycbcr_to_rgb,
)
from sr_jax.images.io import (
  SUFFIXES,
  DamagedImageError,
  check_pixel_count,
  convert_read_errors,
  image_size,
  read_image,
  write_image,
)
from sr_jax.images.resizing import KERNELS, imresize, resize

__all__ = [
  'BLACK', 'KERNELS', 'LUMA', 'SUFFIXES', 'DamagedImageError', 'as_rgb', 'check_pixel_count',
  'convert_read_errors', 'crop_to_multiple', 'image_size', 'imresize', 'luma', 'read_image',
  'resize', 'rgb_to_ycbcr', 'to_float', 'to_levels', 'to_uint8', 'write_image', 'ycbcr_to_rgb']

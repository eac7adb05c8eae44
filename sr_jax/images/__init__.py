"""Images: files to arrays and back, colour conversion, and MATLAB's resize.

Networks, losses and batches take images as float [..., H, W, C] in [0, 1]; those of files are uint8
or uint16. C is 3 (RGB) or 1 (grey).
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
  HEIF_SUFFIXES,
  SUFFIXES,
  DamagedImageError,
  check_pixel_count,
  convert_read_errors,
  header_notes,
  image_size,
  open_image,
  read_image,
  read_samples,
  read_with_notes,
  write_image,
)
from sr_jax.images.resizing import KERNELS, baseline_name, imresize, resize
from sr_jax.images.samples import eight_bit, over_white

__all__ = [
  'BLACK', 'HEIF_SUFFIXES', 'KERNELS', 'LUMA', 'SUFFIXES', 'DamagedImageError', 'as_rgb',
  'baseline_name', 'check_pixel_count', 'convert_read_errors', 'crop_to_multiple', 'eight_bit',
  'header_notes', 'image_size', 'imresize', 'luma', 'open_image', 'over_white', 'read_image',
  'read_samples', 'read_with_notes', 'resize', 'rgb_to_ycbcr', 'to_float', 'to_levels', 'to_uint8',
  'write_image', 'ycbcr_to_rgb']

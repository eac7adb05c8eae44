"""Image metrics: PSNR and SSIM of arrays, the scorer of image files, and tables of scores."""

from sr_jax.metrics.psnr_ssim import (
  METRICS,
  decibels,
  image_psnr,
  image_scores,
  metric_names,
  psnr,
  ssim,
  ssim_map,
)

__all__ = ['METRICS', 'decibels', 'image_psnr', 'image_scores', 'metric_names', 'psnr', 'ssim',
           'ssim_map']

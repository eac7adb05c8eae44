"""Metrics: PSNR, SSIM and LR consistency on the device, LPIPS and tables for people."""

from sr_jax.metrics.psnr_ssim import (
  METRICS,
  accumulator,
  batch_scores,
  decibels,
  image_psnr,
  image_scores,
  lr_consistency,
  metric_names,
  psnr,
  ssim,
  ssim_map,
)

__all__ = [
  'METRICS', 'accumulator', 'batch_scores', 'decibels', 'image_psnr', 'image_scores',
  'lr_consistency', 'metric_names', 'psnr', 'ssim', 'ssim_map']

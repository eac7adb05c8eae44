"""Metrics: PSNR, SSIM and LR consistency on the device, LPIPS and tables for people."""

from sr_jax.metrics.psnr_ssim import (
  FIGURES,
  accumulator,
  decibels,
  figure_names,
  figures,
  figures_of_picture,
  lr_consistency,
  psnr,
  psnr_of_picture,
  ssim,
  ssim_map,
)

__all__ = [
  'FIGURES', 'accumulator', 'decibels', 'figure_names', 'figures', 'figures_of_picture',
  'lr_consistency', 'psnr', 'psnr_of_picture', 'ssim', 'ssim_map']

"""EDSR, the baseline or the full network.

Paper: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution",
CVPRW 2017: 16 crops of 48x48 LR pixels, L1, Adam 1e-4, halved every 2e5 steps; x3 and x4
start from x2. The baseline has 64 features and 16 blocks, the full network 256 and 32 and a
residual scale of 0.1. Published: baseline 37.99 dB / .9604 on Set5 x2; full 32.46 / .8968
on Set5 x4 and 28.80 / .7876 on Set14.

  python -m sr_jax.main --config configs/edsr.py:x2                  (DIV2K)
  python -m sr_jax.main --config configs/edsr.py:x4 --config.init_from=runs/edsr-x2
  python -m sr_jax.main --config configs/edsr.py:full,x2
  python -m sr_jax.main --config configs/edsr.py:sample              (no download)

Cost and result of the full run: unmeasured.
`:sample`: a minute on two CPU cores. On the held-out picture x2 reaches 36.07 dB (bicubic
35.25), x4 31.75 dB (31.47) from scratch and 31.94 dB from that x2.
"""

from configs.common import defaults, parse_variants, use_sample_data, use_scale

VARIANTS = ('full', 'sample', 'x2', 'x3', 'x4', 'x8')


def get_config(variant: str = ''):
  """Variants: `full` (256 features, 32 blocks), `sample` (small data and network), scales."""
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.generator.name = 'edsr'
  config.steps = 300_000
  adam = config.optimizer.g
  adam.schedule, adam.boundaries = 'multistep', (200_000,)
  if 'full' in variants:
    config.generator.features, config.generator.blocks = 256, 32
    config.generator.residual_scale = 0.1
  use_scale(config, variant)
  config.hr_patch = 48 * config.scale
  if 'sample' in variants:
    use_sample_data(config)
    config.hr_patch = 24 * config.scale
    config.steps, config.batch_size, config.ema = 600, 8, 0.99
    config.generator.features, config.generator.blocks = 24, 4
    adam.learning_rate, adam.schedule, adam.ramp = 1e-3, 'cosine', 20
  return config

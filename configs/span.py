"""SPAN, a fast network with attention but without parameters for it, trained with the pixel loss.

Paper: Wan et al., "Swift Parameter-free Attention Network for Efficient Super-Resolution", CVPRW
2024, winner of NTIRE 2024's challenge on efficient super-resolution. The authors' repository has
no options for training. Here: 64 crops of 256x256 HR pixels, L1, Adam 5e-4, halved every 200,000 of
a million steps. Published, for Urban100: x2 32.24 dB / .9294, x4 26.18 / .7879. The authors'
networks of 48 features, measured here with the published weights: 32.20 / .8952 on Set5 x4 and
28.55 / .7811 on Set14.

  sr-jax train --config span                     (DIV2K)
  sr-jax train --config span:sample              (no download)
  sr-jax train --config span:small \\
      --config.data.source=folder:PATH
  sr-jax train --config span --config.generator.fused=True \\
      --config.init_from=span-x4                                     (a published network)

Cost, estimated: 0.7 TFLOP a step, 19 hours at 10 TFLOP/s. Result: unmeasured.
`:small`: 32 features, for minutes on a CPU. Result: unmeasured.
`:sample`: 33 CPU-seconds; 31.87 dB on the validation image (bicubic 31.47). At first the output is
far from an image; with 1e-3 in place of 5e-3 it was at 28.0 dB after 600 steps.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_sample_data,
  use_scale,
  use_small_schedule,
)

VARIANTS = ('small', 'sample', 'x2', 'x3')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `small` (minutes on a CPU), `sample` (small data and network), `x2`, `x3`.
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.generator.name = 'span'
  use_scale(config, variant)
  config.hr_patch, config.batch_size = 64 * config.scale, 64
  config.steps = 1_000_000
  adam = config.optimizer.g
  adam.learning_rate, adam.schedule = 5e-4, 'multistep'
  adam.boundaries = (200_000, 400_000, 600_000, 800_000)
  if 'small' in variants or 'sample' in variants:
    config.hr_patch, config.batch_size = 24 * config.scale, 16
    config.generator.features = 32
    config.steps = 2_000
    use_small_schedule(config, rate=3e-3)
  if 'sample' in variants:
    use_sample_data(config)
    config.hr_patch, config.batch_size = 16 * config.scale, 8
    config.steps, adam.learning_rate, adam.ramp = 1_500, 5e-3, 20
    config.generator.features, config.generator.blocks = 24, 2
  return config

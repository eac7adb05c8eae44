"""DAT, a transformer with attention over windows and over channels, trained with the pixel loss.

Paper: Chen et al., "Dual Aggregation Transformer for Image Super-Resolution", ICCV 2023. The
authors' options, followed here: 32 crops of 64x64 LR pixels, L1, Adam 2e-4 with betas 0.9 and 0.99,
halved at 250,000, 400,000, 450,000 and 475,000 of 500,000 steps, on DF2K. Published, trained so:
33.08 dB / .9055 on Set5 x4, 29.23 / .7973 on Set14; for Urban100 x4 27.87 / .8343, DAT-S 27.68 /
.8300. The authors' light network, measured here with the published weights: 32.57 / .8991 on Set5
x4, 38.24 / .9614 on Set5 x2 and 28.78 / .7864 on Set14 x4.

  sr-jax train --config dat:x2                   (DIV2K)
  sr-jax train --config dat --config.init_from=runs/dat-x2
  sr-jax train --config dat:light,x2             (0.6 million parameters instead of 15)
  sr-jax train --config dat:light --config.init_from=dat-light-x4       (a published network)
  sr-jax train --config dat:s                    (DAT-S, 11 million)
  sr-jax train --config dat:sample               (no download)
  sr-jax train --config dat:small \\
      --config.data.source=folder:PATH

The authors train x3 and x4 from x2. For DAT and DAT-S, but not for the light network, that halves
the rate, the steps and the boundaries: --config.steps=250000
--config.optimizer.g.learning_rate=1e-4
--config.optimizer.g.boundaries='(125_000, 200_000, 225_000, 237_500)'.

If GPU memory does not suffice, --config.generator.remat=True recomputes the blocks' activations
instead of storing them.

Cost, estimated: 13 TFLOP a step, 190 hours at 10 TFLOP/s; `s` 10 TFLOP and 140 hours; `light` 0.7
TFLOP and 9 hours. Results: unmeasured.
`:small`: a network of 155,000 parameters, for minutes on a CPU. Result: unmeasured.
`:sample`: unmeasured.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_sample_data,
  use_scale,
  use_small_schedule,
)

VARIANTS = ('light', 's', 'small', 'sample', 'x2', 'x3')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `light` and `s` (the authors' smaller networks), `small` (minutes on a CPU), `sample`
  (small data and network), `x2`, `x3`.
  """
  variants = parse_variants(variant, VARIANTS)
  if len(variants & {'light', 's', 'small', 'sample'}) > 1:
    raise ValueError(f'variant {variant!r}: expected at most one of light, s, small, sample')
  config = defaults()
  network = config.generator
  network.name = 'dat'
  use_scale(config, variant)
  config.hr_patch, config.batch_size, config.steps = 64 * config.scale, 32, 500_000
  adam = config.optimizer.g
  adam.learning_rate, adam.beta2, adam.schedule = 2e-4, 0.99, 'multistep'
  adam.boundaries = (250_000, 400_000, 450_000, 475_000)
  if 's' in variants:
    network.split_size, network.mlp_ratio = (8, 16), 2.0
  if variants & {'light', 'small', 'sample'}:
    network.features, network.groups, network.blocks, network.mlp_ratio = 60, 1, 18, 2.0
    network.residual_conv, network.upsample = '3conv', 'direct'
  if 'small' in variants:
    network.features, network.blocks, network.split_size = 48, 6, (8, 16)
    config.hr_patch, config.batch_size, config.steps = 32 * config.scale, 8, 1_000
    config.ema = 0.99
    use_small_schedule(config, ramp=50, every=250)
  if 'sample' in variants:
    use_sample_data(config)
    network.features, network.heads, network.blocks = 32, 2, 2
    network.split_size = (4, 8)
    config.hr_patch, config.batch_size, config.steps = 16 * config.scale, 8, 600
    config.ema = 0.99
    adam.learning_rate, adam.schedule, adam.ramp = 2e-3, 'cosine', 50
  return config

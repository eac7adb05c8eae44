"""HAT, a transformer with larger windows, convolutions beside attention and overlapping windows.

Paper: Chen et al., "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023: 6
groups of 6 blocks with 180 features and 6 heads in windows of 16x16 pixels; 32 crops of 64x64 LR
pixels of DIV2K and Flickr2K, L1, Adam 2e-4 (.9, .99), halved after 50, 80, 90 and 95% of 5e5 steps,
weights averaged (.999). x4 starts from x2, at half the rate for half the steps. `s` is HAT-S, with
144 features and narrower convolutions, `large` HAT-L with 12 groups, which the authors train first
on ImageNet for 8e5 steps. Published: 38.63 dB / .9630 on Set5 x2, 35.07 / .9329 x3, 33.04 / .9056
x4, 34.86 / .9274, 31.08 / .8555 and 29.23 / .7973 on Set14, 27.97 / .8368 on Urban100 x4; HAT-S
32.92 on Set5 x4 and 27.87 / .8346 on Urban100, HAT-L, from ImageNet, 33.30 and 28.60 / .8498.

  sr-jax train --config hat:x2                   (DIV2K)
  sr-jax train --config hat --config.init_from=runs/hat-x2 \\
      --config.optimizer.g.learning_rate=1e-4 --config.steps=250000
  sr-jax train --config hat:s,x2
  sr-jax train --config hat:large,x2
  sr-jax train --config hat:sample               (no download)

`:rope` replaces the tables of position biases by rotary embedding with trained frequencies, as in
swinir:rope, also where windows overlap. It needs heads whose size is a multiple of 4: 192 features,
except in `s,rope`, whose 144 have heads of 24. No published network has it.

Blocks are computed again in the backward pass, since the logits of one take 0.8 GB in float32. With
much memory, --config.generator.remat=False saves about a fourth of the time.

Cost, estimated: x2 20 and x4 20 TFLOP a step, 270 and 280 hours at 10 TFLOP/s (x4 from x2: 140);
`s` 11 and 150, `large` 39 and 550, `rope` 22 and 310; a third more with blocks computed again.
Result: unmeasured.
`:small`: a network of about 0.4 million parameters, windows of 8x8. Result: unmeasured.
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

VARIANTS = ('s', 'large', 'rope', 'small', 'sample', 'x2', 'x3')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `s` and `large` (the authors' other networks), `rope` (rotary position embedding),
  `small` (hours on two CPU cores), `sample` (small data and network), `x2`, `x3`.
  """
  variants = parse_variants(variant, VARIANTS)
  if len(variants & {'s', 'large', 'small', 'sample'}) > 1:
    raise ValueError(f'variant {variant!r}: expected at most one of s, large, small, sample')
  config = defaults()
  network = config.generator
  network.name, network.remat = 'hat', True
  use_scale(config, variant)
  config.hr_patch, config.batch_size, config.steps = 64 * config.scale, 32, 500_000
  adam = config.optimizer.g
  adam.learning_rate, adam.beta2 = 2e-4, 0.99
  adam.schedule, adam.boundaries = 'multistep', (0.5, 0.8, 0.9, 0.95)
  if 's' in variants:
    network.features, network.compress, network.squeeze = 144, 24, 24
  if 'large' in variants:
    network.groups = 12
  if 'rope' in variants:
    network.position = 'rope_mixed'
    network.features = network.features or 192
  if 'small' in variants:
    network.update({'features': 48, 'groups': 2, 'blocks': 4, 'window': 8, 'squeeze': 8,
                    'upsample': 'direct', 'remat': False})
    config.hr_patch = 24 * config.scale
    config.steps, config.batch_size, config.ema = 2_000, 16, 0.99
    use_small_schedule(config)
  if 'sample' in variants:
    use_sample_data(config)
    network.update({'features': 24, 'groups': 1, 'blocks': 2, 'heads': 2, 'window': 8,
                    'squeeze': 6, 'upsample': 'direct', 'remat': False})
    config.hr_patch = 16 * config.scale
    config.steps, config.batch_size, config.ema = 600, 8, 0.99
    adam.learning_rate, adam.schedule, adam.ramp = 2e-3, 'cosine', 20
  return config

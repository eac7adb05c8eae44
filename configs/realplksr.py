"""RealPLKSR or PLKSR, convolutions of 17x17 on a quarter of the channels, trained with pixels.

Paper: Lee, Yun and Ro, "Partial Large Kernel CNNs for Efficient Super-Resolution", arXiv 2404.11848
(2024). RealPLKSR is neosr's and traiNNer-redux's variant of it, for training against a
discriminator. The recipe is traiNNer-redux's for fidelity: 16 crops of 96x96 LR pixels,
Charbonnier, Adam 2e-4 with betas 0.9 and 0.99, halved at 100, 200, 300, 400 and 425 thousand of
450,000 steps. Published, Urban100, luma (traiNNer-redux's benchmark tables): RealPLKSR on DF2K x2
33.44 dB / .9412, x4 26.94 / .8140; PLKSR on DIV2K x2 32.99 / .9365, x4 26.69 / .8054; its tiny
network x2 32.43 / .9314, x4 26.12 / .7888.

  sr-jax train --config realplksr                (DIV2K)
  sr-jax train --config realplksr:sample         (no download)
  sr-jax train --config realplksr:plksr,x2       (the paper's network, L1)
  sr-jax train --config realplksr:plksr --config.init_from=runs/realplksr-plksr,x2 \\
      --config.steps=50000 --config.optimizer.g.learning_rate=1e-4 \\
      --config.optimizer.g.schedule=constant     (x3 and x4 of the paper start from x2)

RealPLKSR has a LayerNorm before each block here; older networks, `:group`, have a GroupNorm after
it, whose statistics are those of the whole image. The paper's batch is 64. `:small` are the tiny
networks: 12 blocks, 13x13, no gate. neosr's template for RealPLKSR has a schedule-free Adan (5e-4,
decay 0.01), which is not here; the nearest is --config.optimizer.g.name=adan with a schedule.

Cost, estimated: 6.5 TFLOP a step, 81 hours at 10 TFLOP/s; `small` 2.1 TFLOP and 26 hours. Results:
unmeasured. `:sample`: 40 seconds of processor time; 32.08 dB on the validation image (bicubic
31.47).
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import defaults, parse_variants, use_sample_data, use_scale

VARIANTS = ('plksr', 'group', 'small', 'sample', 'x2', 'x3')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `plksr` (the paper's network and loss), `group` (GroupNorm instead of LayerNorm),
  `small` (the tiny networks), `sample` (small data and network), `x2`, `x3`.
  """
  variants = parse_variants(variant, VARIANTS)
  if {'plksr', 'group'} <= variants:
    raise ValueError(f'variant {variant!r}: expected at most one of plksr, group')
  config = defaults()
  config.generator.name = 'plksr' if 'plksr' in variants else 'realplksr'
  if 'plksr' not in variants:
    config.generator.norm = 'group' if 'group' in variants else 'layer'
    config.loss.pixel.kind = 'charbonnier'
  if 'small' in variants:
    config.generator.blocks, config.generator.kernel, config.generator.gate = 12, 13, False
  use_scale(config, variant)
  config.hr_patch = 96 * config.scale
  config.steps = 450_000
  adam = config.optimizer.g
  adam.learning_rate, adam.beta2 = 2e-4, 0.99
  adam.schedule, adam.boundaries = 'multistep', (100_000, 200_000, 300_000, 400_000, 425_000)
  if 'sample' in variants:
    use_sample_data(config)
    config.hr_patch = 24 * config.scale
    config.steps, config.batch_size, config.ema = 600, 8, 0.99
    config.generator.features, config.generator.blocks = 24, 2
    config.generator.kernel = 13
    adam.learning_rate, adam.schedule, adam.ramp = 2e-3, 'cosine', 20
  return config

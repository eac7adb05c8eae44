"""SwinIR, a transformer with attention in windows, on pixels or, as `real`, against a U-Net.

Paper: Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCVW 2021: 6 groups of 6
blocks with 180 features and 6 heads in windows of 8x8 pixels; 32 crops of 48x48 LR pixels of DIV2K
(64x64 of DIV2K and Flickr2K together), L1, Adam 2e-4 (.9, .99), halved after 50, 80, 90 and 95% of
5e5 steps, weights averaged (.999). x3 and x4 start from x2, at half the rate for half the steps.
`light`: 4 groups, 60 features, 64 crops of 64x64. Published, on DIV2K: 38.35 dB / .9620 on Set5 x2,
34.89 / .9312 x3, 32.72 / .9021 x4 (with Flickr2K 32.92 / .9044) and 28.94 / .7914 on Set14 x4;
`light` 38.14 / .9611, 34.62 / .9289, 32.44 / .8976 and 28.77 / .7858.

  sr-jax train --config swinir:x2                (DIV2K)
  sr-jax train --config swinir --config.init_from=runs/swinir-x2 \\
      --config.optimizer.g.learning_rate=1e-4 --config.steps=250000
  sr-jax train --config swinir:light,x2
  sr-jax train --config swinir:real --config.data.source=hr:data/DIV2K/DIV2K_train_HR
  sr-jax train --config swinir:sample            (no download)

`:rope` replaces the table of position biases by rotary embedding with trained frequencies (Heo et
al., "Rotary Position Embedding for Vision Transformer", ECCV 2024), which needs heads whose size is
a multiple of 4: 192 features, and 48 in `light,rope`. No published network has it.

`:stem` computes the features of the first block by the trunk of an EDSR of 4 blocks instead of one
convolution, as some restoration transformers do; --config.init_from=RUN takes it from a trained
EDSR of the same size, and --config.freeze=stem_trunk keeps it. No published network has it.

`:real` is the paper's network for photographs, x4: degradations of BSRGAN; L1, five layers of
torchvision's VGG19 and 0.1 times the adversarial term of a U-Net; 32 crops of 256x256 HR pixels,
Adam 1e-4, 6e5 steps. The authors start from a network trained on pixels alone; here
--config.warmup_steps=500000 --config.steps=1100000 does both. Published: images, no metrics.

Cost, estimated: x2 5.6 and x4 5.9 TFLOP a step, 78 and 81 hours at 10 TFLOP/s (x4 from x2: 41);
`light,x2` 1.7 and 24; `real` 11, without VGG19 and the U-Net. Result: unmeasured.
`:sample`: half a minute of one CPU's time; 31.60 dB on the validation image (bicubic 31.47).
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_realesrgan_losses,
  use_sample_data,
  use_scale,
  use_small_schedule,
)

VARIANTS = ('light', 'real', 'rope', 'stem', 'small', 'sample', 'x2', 'x3')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `light` (4 groups of 60 features), `real` (photographs: degradations, a discriminator),
  `rope` (rotary position embedding), `stem` (the trunk of an EDSR first), `small` (an hour on two
  CPU cores), `sample` (small data and network), `x2`, `x3`.
  """
  variants = parse_variants(variant, VARIANTS)
  if 'real' in variants and variants & {'light', 'small', 'sample', 'x2', 'x3'}:
    raise ValueError(f'variant {variant!r}: expected no others than rope, stem with '
                     'real')
  config = defaults()
  config.generator.name = 'swinir'
  use_scale(config, variant)
  config.hr_patch, config.batch_size = 48 * config.scale, 32
  config.steps = 500_000
  adam = config.optimizer.g
  adam.learning_rate, adam.beta2 = 2e-4, 0.99
  adam.schedule, adam.boundaries = 'multistep', (0.5, 0.8, 0.9, 0.95)
  if 'light' in variants:
    _light(config)
    config.hr_patch, config.batch_size = 64 * config.scale, 64
  if 'real' in variants:
    _real(config)
  if 'small' in variants:
    _light(config)
    config.generator.features, config.generator.groups = 48, 3
    config.hr_patch, config.steps, config.batch_size, config.ema = 96, 3_000, 16, 0.99
    use_small_schedule(config)
  if 'sample' in variants:
    use_sample_data(config)
    _light(config)
    config.generator.update({'features': 24, 'groups': 1, 'blocks': 2, 'heads': 2})
    config.hr_patch = 16 * config.scale
    config.steps, config.batch_size, config.ema = 600, 8, 0.99
    adam.learning_rate, adam.schedule, adam.ramp = 2e-3, 'cosine', 20
  if 'rope' in variants:
    config.generator.position = 'rope_mixed'
    if 'sample' not in variants and 'small' not in variants:
      config.generator.features = 48 if 'light' in variants else 192
  if 'stem' in variants:
    config.generator.stem = 'edsr'
    config.generator.stem_blocks = 1 if 'sample' in variants else 4
  return config


def _light(config: ConfigDict) -> None:
  """Sets the lightweight network."""
  config.generator.features, config.generator.groups = 60, 4
  config.generator.upsample = 'direct'


def _real(config: ConfigDict) -> None:
  """Sets the network, the degradations and the losses for photographs."""
  config.generator.upsample = 'nearest'
  use_realesrgan_losses(config, 'torchvision')
  config.data.source = 'hr:data/DIV2K/DIV2K_train_HR'
  config.data.degrade.name = 'bsrgan'
  config.hr_patch, config.steps = 256, 600_000
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.learning_rate, adam.beta2 = 1e-4, 0.99
  config.best_metric = 'lpips_alex'

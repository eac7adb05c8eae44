"""EDSR, the baseline or the full network.

Paper: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution",
CVPRW 2017: 16 crops of 48x48 LR pixels, L1, Adam 1e-4, halved every 2e5 steps; x3 and x4
start from x2. The baseline has 64 features and 16 blocks; the full network has 256 features, 32
blocks and a residual scale of 0.1. Published: baseline 37.99 dB / .9604 on Set5 x2; full
32.46 / .8968 on Set5 x4 and 28.80 / .7876 on Set14.

  sr-jax train --config edsr:x2                  (DIV2K)
  sr-jax train --config edsr:x4 --config.init_from=runs/edsr-x2
  sr-jax train --config edsr:full,x2
  sr-jax train --config edsr:sample              (no download)

`:report` follows a student report: 64 features and 8 blocks; x2, x3 and x4 are each trained from
scratch for 100 epochs; a batch consists of one image and augmented variants of it (flipped, with
changed brightness); a correction replaces the network's result by bilinear interpolation where the
two differ too much. Published (with the report's PSNR, on DIV2K's validation images; model,
bilinear, corrected): x2 28.43, 30.03, 32.41; x3 25.56, 27.57, 29.11; x4 23.89, 26.48, 27.39.

  sr-jax train --config edsr:report,x2 --config.data.download=True
  sr-jax evaluate --config edsr:report,x2 \\
      --config.eval.sets=div2k:data/DIV2K:valid

Cost, estimated: x2 0.30 and x4 0.43 TFLOP a step, 2.5 and 3.6 hours at 10 TFLOP/s; full x4 11
TFLOP and 90 hours; report 0.17 (x2) and 0.30 (x4), less than an hour. Results: unmeasured.
`:sample`: a minute on two CPU cores. On the validation image x2 reaches 36.07 dB (bicubic
35.25); x4 reaches 31.75 dB (bicubic 31.47) from scratch and 31.94 dB when it starts from that x2.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import defaults, parse_variants, use_sample_data, use_scale

VARIANTS = ('baseline', 'full', 'report', 'sample', 'x2', 'x3', 'x4', 'x8')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `baseline` (the default), `full` (256 features, 32 blocks), `report` (8 blocks, 100
  epochs), `sample` (small data and network), `x2`, `x3`, `x4`, `x8`.
  """
  variants = parse_variants(variant, VARIANTS)
  if len(variants & {'baseline', 'full', 'report'}) > 1:
    raise ValueError(f"variant {variant!r}: expected at most one of baseline, full, report")
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
  if 'report' in variants:
    config.generator.blocks = 8
    config.epochs, adam.schedule = 100, 'constant'
    config.data.variants, config.data.augment.turn = True, False
    config.data.augment.brightness = (0.5, 0.3)
    config.eval.correct.kind = 'replace'  # the report does not state its threshold
  if 'sample' in variants:
    use_sample_data(config)
    config.epochs = 0
    config.hr_patch = 24 * config.scale
    config.steps, config.batch_size, config.ema = 600, 8, 0.99
    config.generator.features, config.generator.blocks = 24, 4
    adam.learning_rate, adam.schedule, adam.ramp = 1e-3, 'cosine', 20
  return config

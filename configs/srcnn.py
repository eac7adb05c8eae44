"""SRCNN, the first super-resolution network, and the baseline of most published tables.

Paper: Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016:
kernels 9-5-5 with 64 and 32 channels, on the luma of the bicubically upscaled image, MSE, batches
of 128 crops of 33x33 (about as many pixels as 16 of 96x96). Published: 30.48 dB / .8628 on Set5
x4, 27.50 dB / .7513 on Set14, after 8e8 back-propagations on ImageNet.

  sr-jax train --config srcnn                 (DIV2K)
  sr-jax train --config srcnn:sample          (no download)
  sr-jax train --config srcnn:small \\
      --config.data.source=folder:PATH

The optimiser is Adam instead of the paper's SGD, which used a ten times smaller learning rate for
the last layer. Kernels start with LeCun's normal initialisation (a variance of 1 / fan-in), the
paper's with a standard deviation of 0.001; biases start at zero in both.
Cost, estimated: 49 GFLOP a step, 1.4 hours at 10 TFLOP/s. Result: unmeasured.
`:small`, on the 400 training and test photographs of BSDS500: twenty minutes on two CPU
cores; 29.70 dB / .8393 on Set5 x4, 26.89 dB / .7352 on Set14 (bicubic 28.43 and 26.00).
`:sample`: fifty seconds; 31.61 dB on the validation image (bicubic 31.47).
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import defaults, parse_variants, use_sample_data, use_scale

VARIANTS = ('small', 'sample', 'x2', 'x3')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `small` (9-1-5, minutes on a CPU), `sample` (small data and network), `x2`, `x3`.
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.steps = 1_000_000
  config.generator.name = 'srcnn'
  config.generator.kernels = (9, 5, 5)
  config.loss.pixel.kind = 'mse'
  adam = config.optimizer.g
  adam.learning_rate, adam.schedule = 3e-4, 'cosine'
  if 'small' in variants or 'sample' in variants:
    config.generator.kernels = (9, 1, 5)
    config.data.valid = 'sample:valid'
    config.hr_patch, config.steps = 48, 8_000
    adam.learning_rate, adam.ramp = 1e-3, 100
    config.eval.every = config.sample_every = config.checkpoint_every = 1_000
    config.log_every = 100
  if 'sample' in variants:
    use_sample_data(config)
    config.steps = 300
  use_scale(config, variant)
  return config

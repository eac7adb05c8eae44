"""SRResNet, trained with the pixel loss.

Paper: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative
Adversarial Network", CVPR 2017: 16 blocks, 64 features, Adam 1e-4, 1e6 steps of 16 crops
of 96x96, MSE. Published: 32.05 dB on Set5 x4, 28.49 on Set14.

  sr-jax train --config srresnet                 (DIV2K)
  sr-jax train --config srresnet:sample          (no download)
  sr-jax train --config srresnet:small \\
      --config.data.source=folder:PATH

Cost, estimated: 117 GFLOP a step, 3.3 hours at 10 TFLOP/s. Result: unmeasured.
`:small`, on the 400 training and test photographs of BSDS500: seven minutes on two CPU
cores; 30.96 dB on Set5 x4 and 27.76 on Set14 (bicubic 28.43 and 26.00, published SRCNN
30.48 and 27.50).
`:sample`: fifteen seconds; 32.00 dB on the validation image (bicubic 31.47).
`:msr`: the network that BasicSR calls MSRResNet, without BatchNorm and with a bilinear skip
connection, L1, Adam 2e-4. Unlike the paper's network it can be exported for other tools:
`sr-jax weights export --workdir RUN --output FILE.safetensors --names basicsr`. With
`small` or `sample` it has their size, and upsampling by stages in place of 'direct'. Result:
unmeasured.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_sample_data,
  use_scale,
  use_small_schedule,
)

VARIANTS = ('small', 'sample', 'msr', 'x2', 'x3', 'x8')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `small` (minutes on a CPU), `sample` (small data and network), `msr` (a network that
  BasicSR's tools read), `x2`, `x3`, `x8`.

  Raises:
    ValueError: an unknown variant, several scales, or `msr` with `x8`, which BasicSR lacks.
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.steps = 1_000_000
  config.generator.output = 'tanh'
  # On [0, 1] the MSE is a quarter of the paper's on [-1, 1]; Adam is invariant to such a factor.
  config.loss.pixel.kind = 'mse'
  if {'msr', 'x8'} <= variants:
    raise ValueError("variant 'msr,x8': BasicSR's network has the scales 2, 3 and 4")
  if 'msr' in variants:
    _use_msrresnet(config)
    config.optimizer.g.learning_rate = 2e-4
  if 'small' in variants or 'sample' in variants:
    _small(config)
  if 'sample' in variants:
    use_sample_data(config)
    config.steps = 300
    config.batch_size, config.generator.features, config.generator.blocks = 8, 24, 4
  if 'msr' in variants:
    config.generator.upsample = None  # the network's own, 'shuffle'
  use_scale(config, variant)
  return config


def _use_msrresnet(config: ConfigDict) -> None:
  """Sets the network without BatchNorm, and L1."""
  config.generator.name = 'msrresnet'
  config.generator.output = 'linear'
  config.loss.pixel.kind = 'l1'


def _small(config: ConfigDict) -> None:
  """Sets a network and a schedule for minutes on a CPU.

  The network has no BatchNorm and computes everything at low resolution.
  """
  _use_msrresnet(config)
  config.generator.features, config.generator.blocks = 48, 8
  config.generator.upsample = 'direct'
  config.steps = 2_000
  use_small_schedule(config)

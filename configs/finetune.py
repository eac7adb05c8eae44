"""Fine-tuning of a published or an own network on a folder of photographs.

Paper: Wang et al., "Real-ESRGAN", ICCVW 2021, whose losses and degradations are used; the recipe is
our own. Published: nothing to compare with. A network that was trained for everything is trained
for 2,000 gentle steps on images of the kind that it is for. A colour term is added, because
fine-tuning without one often shifts colours and brightness (Real-ESRGAN#148, #210, #745). The
generator's learning rate rises over the first quarter, while the new discriminator learns. The
scores of the network as it was are logged before the first step, so the log tells at once whether
it becomes better.

  sr-jax train --config finetune --config.data.source=folder:PATH \\
      --config.data.fraction='(0.9, 0.1)'
  sr-jax train --config finetune --config.init_from=runs/realesrgan \\
      --config.data.source=folder:PATH --config.data.fraction='(0.9, 0.1)'
  sr-jax train --config finetune:small,caffe --config.data.source=folder:PATH \\
      --config.loss.perceptual.weights=vgg19_caffe.safetensors
  sr-jax train --config finetune:sample          (no download)

The network must be the one that `init_from` names: realesrgan-x4plus is RRDBNet's default;
`small` has the fields of realesr-animevideov3-x4. The message of another one says which fields to
set.

Cost, estimated: 16 TFLOP a step, 53 minutes at 10 TFLOP/s. Result: unmeasured.

`:small,caffe` with 60 photographs of BSDS500, 300 steps, 9 minutes on one core, scored on 20 others
with LR by all of Real-ESRGAN's damage, and with bicubic LR (PSNR of luma; of the result, reduced,
against LR; shift of the mean colours in CIELAB):
                                 damaged LR                   bicubic LR
                                 LPIPS  PSNR   of LR  shift   LPIPS  PSNR   of LR  shift
  realesr-animevideov3-x4        .708   22.49  29.6   1.35    .453   26.75  33.8    .95
  :small                         .597   22.86  31.0   1.40    .395   26.41  33.0    .77
  ... without the colour term    .596   22.81  30.4   1.78    .394   26.36  32.5   1.06
  all of that damage in training .601   22.83  28.4   1.78    .462   25.66  30.1    .86
  ... without the colour term    .602   22.70  27.8   2.32    .461   25.57  29.7   1.29
So with a third of the damage, which this config has, clean photographs do not become worse, and the
colour term removes a quarter of the shift. With all of it skin and moss become flat patches with
shiny edges.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_realesrgan_losses,
  use_sample_compact,
  use_sample_data,
  use_vgg16,
)

VARIANTS = ('caffe', 'small', 'sample')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `caffe` (the original VGG19), `small` (the small network realesr-animevideov3-x4 and
  300 steps; minutes on a CPU), `sample` (images inside scikit-image, a small network that begins
  with random weights, VGG16; minutes on a CPU).
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.generator.name, config.init_from = 'rrdb', 'realesrgan-x4plus'
  use_realesrgan_losses(config, 'caffe' if 'caffe' in variants else 'torchvision')
  config.loss.colour.weight = 1.0
  config.data.source, config.data.valid = 'folder:photos', 'split:valid'
  config.data.fraction = (0.9, 0.1)
  _degrade_mildly(config)
  config.hr_patch, config.batch_size, config.steps = 256, 16, 2_000
  config.optimizer.g.learning_rate, config.optimizer.g.ramp = 2e-5, 500
  config.optimizer.d.learning_rate = 1e-4
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.beta2 = 0.99
  config.best_metric = 'lpips_alex'
  config.eval.every = config.sample_every = config.checkpoint_every = 250
  config.eval.pictures, config.log_every = 20, 25
  if 'small' in variants:
    _small(config)
  if 'sample' in variants:
    _sample(config)
  return config


def _degrade_mildly(config: ConfigDict) -> None:
  """Sets Real-ESRGAN's chain with about a third of its damage, as photographs of today have."""
  degrade = config.data.degrade
  degrade.name = 'realesrgan'
  degrade.blur.probability, degrade.blur.sigma, degrade.blur2.sigma = 0.8, (0.2, 2.0), (0.2, 1.0)
  degrade.resize.factor, degrade.final.quality = (0.5, 1.2), (60, 95)
  degrade.noise.sigma, degrade.noise.poisson = (1.0, 10.0), (0.05, 1.0)
  degrade.noise2.sigma, degrade.noise2.poisson = (1.0, 8.0), (0.05, 0.8)


def _small(config: ConfigDict) -> None:
  """Sets a small published network and minutes on two CPU cores."""
  config.generator.name, config.init_from = 'compact', 'realesr-animevideov3-x4'
  config.hr_patch, config.batch_size, config.steps, config.ema = 96, 4, 300, 0.99
  config.discriminator.features = 32
  config.optimizer.g.ramp = 75
  config.eval.every = config.sample_every = config.checkpoint_every = 100
  config.log_every = 10


def _sample(config: ConfigDict) -> None:
  """Sets a small network with random weights, and a warm-up that takes the place of its past."""
  use_sample_data(config)
  config.data.fraction, config.init_from = (), ''
  config.generator.name = 'compact'
  use_sample_compact(config)
  config.discriminator.features = 8
  use_vgg16(config, 'conv1_2:0.1,conv2_2:0.1,conv3_3:1,conv4_3:1,conv5_3:1')
  config.hr_patch, config.batch_size, config.ema = 64, 4, 0.99
  config.data.degrade.margin = 40
  config.warmup_steps, config.steps = 150, 250
  config.optimizer.warmup.learning_rate = 2e-3
  config.optimizer.warmup.ramp = config.optimizer.g.ramp = 20

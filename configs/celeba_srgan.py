"""SRGAN on CelebA's faces, from 64 to 256 pixels, as presented in a talk.

Report: SRGAN with a discriminator of entire images of 256x256 (3x3 convolutions of 64, 64, 128,
128, 256, 256, ... channels, every second one with stride 2); the loss is a content term (MSE of
pixels, or of VGG features) + 1e-3 times the adversarial term; 20,000 steps; every 500 steps LR, SR
and HR side by side; plots of the losses that tell when to stop. Published: images and run times, no
metrics.

  sr-jax train --config celeba_srgan --config.data.download=True
  sr-jax train --config celeba_srgan:caffe \\
      --config.loss.perceptual.weights=vgg19_caffe.safetensors
  sr-jax train --config celeba_srgan --config.data.source=folder:PATH \\
      --config.data.fraction='(0.98, 0.01, 0.01)' --config.data.valid=split:valid
  sr-jax train --config celeba_srgan:sample      (no download)

CelebA's aligned images have 178x218 pixels and are resized to 256x256 first, as in the talk. TFDS
needs TensorFlow once, to prepare them (docs/data.md). The metrics `terms/...` of a run show
whether it overfits: they are the same loss on training images and on validation images.

Cost, estimated: 2.2 TFLOP a step, 1.2 hours at 10 TFLOP/s (`:vgg`: 4.6 TFLOP and 2.5 hours).
Result: unmeasured.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_sample_data,
  use_srgan_content,
  use_vgg16,
)

VARIANTS = ('vgg', 'caffe', 'sample')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `vgg` (content term on VGG19's features), `caffe` (on those of the original VGG19),
  `sample` (images inside scikit-image, a small network; minutes on a CPU).
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.hr_patch = 256
  config.steps = 20_000
  config.generator.output = 'tanh'
  config.discriminator.name, config.discriminator.head = 'vgg_style', 'conv'
  config.loss.pixel.kind, config.loss.pixel.weight = 'mse', 1.0  # the talk states no value range
  config.loss.adversarial.weight = 1e-3
  config.data.source, config.data.valid = 'tfds:celeb_a', 'tfds:celeb_a:validation'
  config.data.resize = '256x256'
  config.data.augment.turn = False  # faces are upright
  config.eval.sets, config.eval.resize = 'tfds:celeb_a:test', config.data.resize
  config.eval.every, config.sample_every, config.checkpoint_every = 1_000, 500, 500
  config.best_metric = 'lpips_alex'
  if variants & {'vgg', 'caffe'}:
    config.loss.pixel.weight = 0.0
    use_srgan_content(config, 'caffe' if 'caffe' in variants else 'torchvision')
  if 'sample' in variants:
    use_sample_data(config)
    config.data.resize = config.eval.resize = ''
    config.batch_size, config.hr_patch, config.steps, config.ema = 8, 64, 300, 0.99
    config.generator.features, config.generator.blocks = 24, 4
    config.discriminator.widths, config.discriminator.hidden = (16, 32, 64), 128
    if config.loss.perceptual.weight:
      use_vgg16(config, 'relu5_3')
    for adam in (config.optimizer.g, config.optimizer.d):
      adam.learning_rate = 5e-4
  return config

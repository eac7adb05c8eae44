"""A published RRDBNet fine-tuned on few image pairs, training only its trunk, as in a report.

Report: 80 image pairs, LR 64x64 and HR 256x256, whose order, names and sizes did not match; a
pretrained ESRGAN of which only the residual blocks are trained and everything else is frozen; Adam
1e-4 (.9, .999), batches of one; 5 epochs of MSE, or 10 of a perceptual loss, without a
discriminator; validation after every epoch. Published, on the report's own test images (PSNR / SSIM
/ LPIPS): bicubic 25.76 / .6608, SRCNN 27.55 / .7262, ESRGAN 27.39 / .7033 / .1972, fine-tuned with
MSE 28.21 / .7394 / .2205, with the perceptual loss 27.39 / .7073 / .1257.

  sr-jax train --config esrgan_finetune:mse \\
      --config.data.source=pairs:HR=PATH,LR=PATH,match=content,resize=64x256
  sr-jax train --config esrgan_finetune:perceptual --config.data.source=...
  sr-jax train --config esrgan_finetune:sample   (no download)
  sr-jax evaluate --config esrgan_finetune:mse
                                         (bilinear, bicubic and the network on the test pairs)

`match=content` pairs the files by image content; a fifth of the pairs is for test, an eighth of the
remaining ones for validation. `init_from` accepts any RRDBNet (docs/training.md):
`realsr-df2k` has 23 blocks; for a network of six blocks, use
`--config.init_from=realesrgan-x4plus-anime --config.generator.blocks=6`. The blocks are `body_0` to
`body_22` in the table of arrays that a run prints; `train_only` and `freeze` select other arrays.

Cost, estimated: 0.42 TFLOP a step (perceptual 0.57), a minute for 80 pairs at 10 TFLOP/s.
Measured on 80 pairs of BSDS500 photographs, with 20 test pairs, six blocks, hr_patch=128: `:mse`
takes six minutes on two busy CPU cores, `:caffe` twenty; docs/training.md has
the results.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import (
  defaults,
  parse_variants,
  use_esrgan_content,
  use_sample_data,
  use_sample_rrdb,
  use_vgg16,
)

VARIANTS = ('mse', 'perceptual', 'caffe', 'sample')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `mse` (the default), `perceptual` (VGG19), `caffe` (the same with the original VGG19),
  `sample` (images inside scikit-image, an untrained small network, VGG16; a minute on a CPU).
  """
  variants = parse_variants(variant, VARIANTS)
  if 'mse' in variants and variants & {'perceptual', 'caffe'}:
    raise ValueError(f"variant {variant!r}: mse excludes perceptual and caffe")
  config = defaults()
  config.generator.name = 'rrdb'
  config.init_from, config.train_only = 'realsr-df2k', 'body_[0-9]*'
  config.batch_size, config.hr_patch, config.epochs = 1, 256, 5
  config.loss.pixel.kind = 'mse'
  config.data.source = 'pairs:HR=data/pairs/HR,LR=data/pairs/LR,match=content,resize=64x256'
  config.data.fraction, config.data.valid = (0.7, 0.1, 0.2), 'split:valid'
  config.eval.sets = 'split:test'
  config.eval.every_epochs, config.eval.pictures = 1, 20
  config.log_every, config.sample_every, config.checkpoint_every = 10, 80, 80
  if variants & {'perceptual', 'caffe'}:
    config.epochs, config.best_metric = 10, 'lpips_alex'
    use_esrgan_content(config, 'caffe' if 'caffe' in variants else 'torchvision')
  if 'sample' in variants:
    _sample(config)
  return config


def _sample(config: ConfigDict) -> None:
  """Sets a small network without pretrained weights: two trained blocks between frozen layers."""
  use_sample_data(config)
  config.data.fraction = ()
  config.epochs = config.eval.every_epochs = 0
  config.init_from, config.steps, config.hr_patch = '', 100, 64
  use_sample_rrdb(config)
  if config.loss.perceptual.weight:
    use_vgg16(config, 'conv5_3')

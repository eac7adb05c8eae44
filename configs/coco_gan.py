"""A GAN with transposed convolutions on COCO, from 64 to 256 pixels, as described in a report.

Report: the generator is a 9x9 convolution, PReLU, 8 residual blocks, a long skip connection, then
twice a convolution, a transposed convolution and PReLU (x4); the discriminator has 3x3 convolutions
with BatchNorm and LeakyReLU, and dense layers of 1024 and 1; the loss is MSE + binary
cross-entropy, with equal weights; Adam 1e-4 with beta1 .9; the 123,000 unlabelled images of COCO
2017 at 256 pixels, LR of 64, flipped, cropped, darkened, and with changed saturation and
brightness. Published: images with seams between patches of 64 pixels and a colour cast; 800 s for
each of 1,000 iterations; no metrics.

  sr-jax train --config coco_gan \\
      --config.data.source=folder:data/coco/unlabeled2017
  sr-jax train --config coco_gan:sample          (no download)

The images come from a folder because TFDS's `coco` has no unlabelled part; grey images are
converted to RGB. The problems that the report describes do not occur here, except one: images are
upscaled as a whole, so there are no seams; the training step is compiled once and releases its
memory, so memory does not grow; images are decoded once. The transposed kernels are 4 wide at
stride 2, which avoids a checkerboard pattern. The colour cast remains, because it follows from the
loss: on [0, 1] the squared error is about a hundredth of the cross-entropy, which has the same
weight. `psnr_lr` in every table shows the cast; `:balanced` uses SRGAN's weight 1e-3 and has none.

Cost, estimated: 1.9 TFLOP a step, 5.3 hours at 10 TFLOP/s. The packed images have 34 GB (with
data.mode 'auto' they are kept in the memory of a large GPU, otherwise mapped from the disk).
Result: unmeasured.
"""

from ml_collections import ConfigDict

from sr_jax.experiment.base_config import defaults, parse_variants, use_sample_data

VARIANTS = ('balanced', 'sample')


def get_config(variant: str = '') -> ConfigDict:
  """Returns the config.

  Variants: `balanced` (adversarial weight 1e-3), `sample` (images inside scikit-image, a small
  network; minutes on a CPU).
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.hr_patch = 256
  config.steps = 100_000  # 13 epochs
  config.generator.blocks, config.generator.upsample = 8, 'transposed'
  config.discriminator.name, config.discriminator.head = 'vgg_style', 'dense'
  config.loss.pixel.kind, config.loss.pixel.weight = 'mse', 1.0
  config.loss.adversarial.weight = 1e-3 if 'balanced' in variants else 1.0
  config.data.source, config.data.valid = 'folder:data/coco/unlabeled2017', 'split:valid'
  config.data.fraction, config.data.resize = (0.999, 0.0005, 0.0005), '256'
  config.eval.sets = 'split:test'
  config.data.augment.turn = False
  for kind in ('brightness', 'darkening', 'saturation'):
    config.data.augment[kind] = (0.25, config.data.augment[kind][1])
  config.best_metric = 'lpips_alex'
  config.sample_every = 100
  if 'sample' in variants:
    use_sample_data(config)
    config.data.fraction, config.data.resize = (), ''
    config.batch_size, config.hr_patch, config.steps, config.ema = 8, 64, 300, 0.99
    config.generator.features, config.generator.blocks = 24, 4
    config.discriminator.widths, config.discriminator.hidden = (16, 32, 64), 128
    for adam in (config.optimizer.g, config.optimizer.d):
      adam.learning_rate = 5e-4
  return config

"""A GAN on COCO with transposed convolutions, as a report has it: 64 to 256 pixels.

Report: 9x9 convolution, PReLU, 8 residual blocks, a long skip, then twice a convolution, a
transposed one and PReLU (x4), against a discriminator of 3x3 convolutions with BatchNorm and
LeakyReLU and dense layers of 1024 and 1; MSE and binary cross-entropy, one to one; Adam 1e-4 with
beta1 .9; the 123,000 unlabelled pictures of COCO 2017 at 256 pixels, LR of 64, flipped, cropped,
darkened, their saturation and brightness changed. Published: pictures with seams between
64-pixel patches and a colour cast; 800 s for each of 1,000 iterations; no figures.

  python -m sr_jax.main --config configs/coco_gan.py \\
      --config.data.source=folder:data/coco/unlabeled2017
  python -m sr_jax.main --config configs/coco_gan.py:sample          (no download)

TFDS's `coco` has no unlabelled part, hence a folder; its grey pictures are repeated to RGB.
What the report complains of: pictures are upscaled whole, so there are no seams; the training
step is compiled once and gives its memory back, so it does not grow; pictures are decoded once.
The transposed kernels are 4 wide at stride 2, which leaves no checkerboard. The cast comes with
the recipe: on [0, 1] the squared error is a hundredth of the cross-entropy that it is weighed
against. `psnr_lr` in every table shows it; `:balanced` has SRGAN's 1e-3 and loses it.

Cost, estimated: 1.9 TFLOP a step, 5.3 hours at 10 TFLOP/s. Packed, the pictures are 34 GB
(data.mode 'auto': in a large GPU's memory, else mapped from the disk). Result: unmeasured.
"""

from configs.common import defaults, parse_variants, use_sample_data

VARIANTS = ('balanced', 'sample')


def get_config(variant: str = ''):
  """Variants: `balanced` (adversarial term of 1e-3), `sample` (pictures inside scikit-image, a
  small network; minutes on a CPU).
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

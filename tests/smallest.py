"""The smallest adversarial experiment, and a reset of sr_jax.main's flags."""

from absl import flags
from ml_collections import ConfigDict

from sr_jax.experiment.base_config import defaults


def get_config() -> ConfigDict:
  """Returns a config without data: x2, 16-pixel crops, no VGG, 40 steps with a warm-up of 20."""
  config = defaults()
  config.scale, config.batch_size, config.hr_patch = 2, 4, 16
  config.steps, config.warmup_steps = 40, 20
  config.generator.update({'features': 4, 'blocks': 1, 'kernel': 3})
  config.discriminator.update({
      'name': 'vgg_style', 'widths': (4, 8), 'head': 'conv', 'hidden': 8})
  config.loss.adversarial.weight = 1e-3
  for adam in config.optimizer.values():
    adam.learning_rate = 1e-3
  config.data.valid, config.eval.lpips = '', 'none'
  config.eval.every = config.sample_every = 1000
  config.log_every, config.checkpoint_every = 10, 20
  return config


def degrade(config: ConfigDict) -> None:
  """Changes a config to Real-ESRGAN: degradations, sharpened targets and a U-Net, at any size.

  The chain has the last of its stages, since all of them take ten seconds to compile.
  """
  config.warmup_steps = 0
  config.data.degrade.update({'name': 'custom', 'stages': ('resize2', 'noise2', 'final'),
                              'margin': 8, 'sharpen_hr': 0.5})
  config.discriminator.update({'name': 'unet', 'widths': None, 'head': None, 'hidden': None,
                               'features': 4})


def forget_flags() -> None:
  """Resets the flags of sr_jax.main that an earlier command line in this process has set."""
  flags.FLAGS.unparse_flags()
  for name in ('config', 'workdir', 'mode', 'resume', 'step', 'size', 'import', 'target',
               'data-gib', 'output'):
    flags.FLAGS[name].unparse()

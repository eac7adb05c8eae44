"""Makes the trainings of the pages small: the same commands, with few steps of a small network."""

import ast
import importlib.util
import math
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

import sr_jax
from sr_jax.experiment import config_file, values
from sr_jax.experiment.check import check
from sr_jax.pretrained.published import PUBLISHED
from sr_jax.profiling import ceilings
from sr_jax.profiling import run as profiling
from sr_jax.train import initial

# The largest value of a key. What a config or a command has below it stays.
LARGEST = {
    'epochs': 2, 'warmup_epochs': 1, 'batch_size': 4, 'accumulate': 2, 'eval.pictures': 2,
    'progress_pictures': 1, **{f'optimizer.{name}.ramp': 5 for name in ('g', 'd', 'warmup')}}
# Values in place of those of an experiment; a command that sets the key keeps its own.
INSTEAD = {
    'loss.perceptual.weight': 0.0, 'eval.lpips': 'none', 'best_metric': 'psnr_y',
    'eval.every': 1000, 'log_every': 5, 'checkpoint_every': 1000}
# Fields of the networks, in place of all others.
SRRESNET = {'features': 4, 'blocks': 1, 'kernel': 3}
NETWORKS = {
    'generator': {
        'srresnet': SRRESNET, 'msrresnet': SRRESNET, 'edsr': {'features': 4, 'blocks': 1},
        'rrdb': {'features': 4, 'blocks': 1, 'growth': 4}, 'compact': {'features': 4, 'blocks': 1},
        'span': {'features': 4, 'blocks': 1},
        'dat': {'features': 32, 'groups': 1, 'blocks': 2, 'heads': 2, 'split_size': (2, 4)},
        'srcnn': {'widths': (4, 4), 'kernels': (3, 1, 3)}},
    'discriminator': {'vgg_style': {'widths': (4, 8), 'head': 'conv', 'hidden': 8},
                      'unet': {'features': 2}}}
STAND_IN = '.published-x{}.safetensors'  # an RRDBNet, for those of scale 4 and others
BIG = 'realesrgan-x4plus', 'realsr-df2k'
SMALL_PAGE = 'DOCS_SMALL_PAGE'
PREPARED = '.prepared'  # marks a run that the test made and that a page may make again


def few(steps: int) -> int:
  """Returns a number of steps that a test can afford: more for more, so that runs continue."""
  return steps if steps <= 10 else 10 + round(2 * math.log2(steps / 10))


def small_settings(config: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
  """Returns the settings that make an experiment small.

  Args:
    config: the values of the experiment, by their full names.
    given: the settings of the command line.
  """
  config = {**config, **{key: _literal(text) for key, text in given.items()}}
  settings = {key: most for key, most in LARGEST.items() if config[key] > most}
  settings['warmup_steps'] = few(config['warmup_steps'])
  settings['steps'] = few(config['steps'])
  if config['steps'] > config['warmup_steps']:
    settings['steps'] = max(settings['steps'], settings['warmup_steps'] + 2)
  settings['hr_patch'] = min(config['hr_patch'], max(32 // config['scale'], 1) * config['scale'])
  if config['phases.steps']:
    settings['phases.steps'] = (3,) * len(config['phases.steps'])
    for key in ('hr_patch', 'batch_size'):
      most = settings.get(key, config[key])
      settings[f'phases.{key}'] = tuple(min(value, most) for value in config[f'phases.{key}'])
  settings |= {key: value for key, value in INSTEAD.items() if key not in given}
  for network, known in NETWORKS.items():
    fields = known.get(config[f'{network}.name'], {})
    settings |= {f'{network}.{field}': value for field, value in fields.items()}
  if config['init_from'] in PUBLISHED:
    settings['init_from'] = STAND_IN.format(4)
  if config['data.source'].startswith('div2k:data/DIV2K'):
    settings['data.source'] = 'folder:photos'
  if config['data.valid'].startswith(('div2k:data/DIV2K', 'sample')):  # PNGs of large images cost
    settings['data.valid'] = 'folder:scans'
  return settings


def shrink(module: str, arguments: Sequence[str]) -> list[str]:
  """Returns the arguments of a command of sr_jax, those of a training with small settings added."""
  flags = _flags(arguments)
  if module == 'sr_jax':
    mode = arguments[0] if arguments else ''
  else:
    mode = flags.get('mode', 'train') if module == 'sr_jax.main' else ''
  spec = flags.get('config', '')
  if mode == 'replay' and flags.get('step', '').isdecimal():  # of a run that is small already
    return [f'--step={few(int(flags["step"]))}' if argument.startswith('--step=') else argument
            for argument in _joined(arguments)]
  if mode not in ('train', 'profile', 'summary', 'examples') or not spec or any(
      flag.startswith('help') for flag in flags):
    return list(arguments)
  given = {name.removeprefix('config.'): text for name, text in flags.items()
           if name.startswith('config.')}
  if spec.endswith('.json'):  # of a run that is small already
    settings = {'steps': few(int(given['steps']))} if 'steps' in given else {}
  else:
    if mode == 'train':
      _forget_prepared(flags.get('workdir') or _default_workdir(spec))
      _check(spec, given)
    settings = small_settings(values.flat(config_file.load(spec)), given)
    if mode == 'profile':
      _measure_little()
      settings['warmup_steps'] = 0  # of two phases, one
  kept = [argument for argument in _joined(arguments)
          if argument.partition('=')[0].removeprefix('--config.') not in settings]
  return [*kept, *(f'--config.{key}={text}' for key, text in settings.items())]


def _measure_little() -> None:
  """Lets a profile measure for a moment, which is less accurate."""
  ceilings.MATRIX_SIDE['cpu'], ceilings.COPY_BYTES['cpu'] = 256, 2**20
  profiling.ROWS, profiling.ROW_SECONDS, profiling.PART_ROUNDS = 1, 0.05, 3


def _literal(text: str) -> Any:
  """Returns the Python value that a setting of the command line stands for."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def _joined(arguments: Sequence[str]) -> list[str]:
  """Returns the arguments with `--flag value` as `--flag=value`."""
  joined: list[str] = []
  for argument in arguments:
    if joined and not argument.startswith('-') and joined[-1].startswith('--') and (
        '=' not in joined[-1]):
      joined[-1] += f'={argument}'
    else:
      joined.append(argument)
  return joined


def _flags(arguments: Sequence[str]) -> dict[str, str]:
  """Returns {'config': 'srgan', 'config.steps': '10'}."""
  pairs = (argument.removeprefix('--').partition('=') for argument in _joined(arguments)
           if argument.startswith('--'))
  return {name: value for name, _, value in pairs}


def _default_workdir(spec: str) -> str:
  name, _, variant = spec.partition(':')
  return '-'.join([f'runs/{pathlib.Path(name).stem}', *filter(None, variant.split(','))])


def _check(spec: str, given: Mapping[str, str]) -> None:
  """Checks the experiment as it was asked for, as the training itself would.

  Raises:
    InputError: a value is invalid, or `init_from` does not fit the network.
  """
  config = config_file.override(config_file.load(spec), given, spec)
  check(config)
  known = PUBLISHED.get(config.init_from)
  if known and importlib.util.find_spec(known.module):
    initial.load_initial(config)


def _forget_prepared(workdir: str) -> None:
  if pathlib.Path(workdir, PREPARED).exists():
    shutil.rmtree(workdir)


def shrink_configs() -> None:
  """Makes the experiments small that a Python program asks `sr_jax.get_config` for."""
  original = sr_jax.get_config

  def get_config(spec: str) -> ConfigDict:
    config = original(spec)
    for key, value in small_settings(values.flat(config.to_dict()), {}).items():
      section, _, field = key.rpartition('.')
      (config[section] if section else config)[field] = value
    return config

  sr_jax.get_config = get_config


def use_stand_ins() -> None:
  """Puts small networks in the place of published ones.

  These are the ones of BIG on all pages but README.md, which `SMALL_PAGE` marks in the environment,
  since each command would spend seconds on compiling them, and those whose package is missing.
  """
  for network, known in PUBLISHED.items():
    if (network in BIG and SMALL_PAGE in os.environ) or not importlib.util.find_spec(known.module):
      scale = network[-1] if network.endswith(('2', '3')) else '4'
      PUBLISHED[network] = known._replace(
          module='tests', file=os.path.abspath(STAND_IN.format(scale)))

"""Trains, evaluates and profiles super-resolution networks.

  python -m sr_jax.main --config configs/srgan.py:sample
  python -m sr_jax.main --config configs/srgan.py --workdir runs/srgan --mode evaluate \\
      --config.eval.sets=data/Set5,data/Set14

Modes:
  train     trains a run, or resumes it from its latest checkpoint
  evaluate  scores a run's generator on benchmark sets, beside bilinear and bicubic
  profile   measures how long the parts of a training step take, and what limits it
  replay    repeats a logged training step and shows its metrics and its batch
  summary   prints the networks layer by layer, without data or a run
"""

import functools
import pathlib
import re
import sys

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from sr_jax.errors import InputError
from sr_jax.system import cli, files, signals

MODES = ('train', 'evaluate', 'profile', 'replay', 'summary')

_CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'The experiment: configs/NAME.py or configs/NAME.py:VARIANT,VARIANT. '
    '--config.KEY=VALUE overrides a key; configs/common.py explains all keys.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The folder of the run; by default runs/NAME or runs/NAME-VARIANT.')
_MODE = flags.DEFINE_enum('mode', 'train', MODES, 'What to do; the list above explains the modes.')
_STEP = flags.DEFINE_string(
    'step', 'latest', "--mode evaluate: the checkpoint to evaluate, a step, 'latest' or 'best'. "
    '--mode replay: the number of the step to repeat, as in the log.')
_SIZE = flags.DEFINE_string(
    'size', '', "--mode summary: HEIGHTxWIDTH of the generator's low-resolution input; by default "
    'the size of the training crops.')


def main(argv: list[str]) -> int:
  """Runs a command line, `argv` including the program's name; returns the exit status."""
  if any(argument in ('--help', '-h', '-help', '--helpshort') for argument in argv[1:]):
    flags.FLAGS.unparse_flags()
    print(f'{__doc__}\n{flags.FLAGS.module_help(sys.modules[__name__])}')
    return 0
  return cli.run(functools.partial(_run, argv))


def _parse(argv: list[str]) -> None:
  """Parses the flags and loads the config.

  Raises:
    InputError: names the flag, the key or the file, in one line.
  """
  try:
    rest = flags.FLAGS(argv)[1:]
    if rest:
      raise InputError(f'unexpected argument {rest[0]!r}: expected only flags, see --help')
    if _CONFIG.value is None:
      raise InputError('--config is missing: name an experiment, such as configs/srgan.py:sample')
    _CONFIG.value.seed  # noqa: B018, if the file was not found, only access raises
    for key in (key for key in flags.FLAGS if key.startswith('config.')):
      if isinstance(_CONFIG.value[key.removeprefix('config.')], ConfigDict):
        raise InputError(f'--{key}: is a section of keys; set them as --{key}.KEY=VALUE')
  except InputError:
    raise
  except OSError:
    raise InputError(f'{_config_file(argv)}: no such config file') from None
  except (NameError, SyntaxError, ImportError) as error:  # while Python executes the file
    raise InputError(f'{_config_file(argv)}: cannot load ({error}); expected a Python file such as '
                     'configs/srgan.py') from None
  except (KeyError, AttributeError) as error:
    if 'get_config' in str(error):
      raise InputError(f'{_config_file(argv)}: defines no get_config()') from None
    key = re.search(r'\w+', str(error.args[0]))
    advice = re.search(r'Did you mean "(\w+)"', str(error.args[0]))
    raise InputError(f'unknown config key {(key[0] if key else "")!r}: '
                     + (f'did you mean {advice[1]!r}?' if advice else
                        'configs/common.py lists all keys')) from None
  except Exception as error:  # absl and ml_collections raise ten kinds, some with tracebacks
    lines = [line for line in str(error).strip().strip('"').splitlines() if line.strip()]
    line = lines[-1].strip().removeprefix('ValueError: ') if lines else repr(error)
    raise InputError(line) from None


def _config_file(argv: list[str]) -> str:
  """Returns the file in --config; the flag itself has no value if the file could not be loaded."""
  name = '--config'  # it may also come from a --flagfile
  for argument, following in zip(argv, [*argv[1:], ''], strict=True):
    if argument.lstrip('-') == 'config':
      name = following
    elif argument.lstrip('-').startswith('config='):
      name = argument.partition('=')[2]
  return name.partition(':')[0]


def _run(argv: list[str]) -> int:
  _parse(argv)
  # JAX is imported late, so that --help and mistyped flags are answered at once.
  config = _CONFIG.value
  workdir = files.expand(_WORKDIR.value or default_workdir())
  from sr_jax.system import compile_cache, multihost
  count, number = multihost.process_env()
  if _MODE.value != 'train' and number:
    return 0  # of several processes, the first does everything but training alone
  compile_cache.use_cache(count if _MODE.value == 'train' else 1)
  if _MODE.value == 'train':
    with multihost.distributed(config.join_seconds):
      from sr_jax.train import train
      from sr_jax.train.stopping import Stopped
      try:
        with signals.exit_on_second_signal():
          train(config, workdir)
      except Stopped as stopped:
        return cli.refuse(f'Stopped by {stopped}. Run the same command to resume',
                          128 + stopped.signal)
  elif _MODE.value == 'evaluate':
    from sr_jax.evaluate import evaluate_run
    from sr_jax.report import page
    evaluate_run(config, workdir, _STEP.value)
    print(f'\n{page.write([workdir])}')
  elif _MODE.value == 'replay':
    from sr_jax.train.replay import replay_run
    replay_run(config, workdir, _STEP.value)
  elif _MODE.value == 'summary':
    from sr_jax.profiling.summary import summarize
    print(summarize(config, _SIZE.value))
  else:
    from sr_jax.profiling.run import profile_run
    profile_run(config, workdir)
  return 0


def default_workdir() -> str:
  """Returns 'runs/srgan' for configs/srgan.py and 'runs/srgan-sample' for srgan.py:sample."""
  path, _, variant = flags.FLAGS['config'].config_filename.partition(':')
  return 'runs/' + '-'.join([pathlib.Path(path).stem, *filter(None, variant.split(','))])


if __name__ == '__main__':
  logging.set_verbosity(logging.ERROR)  # Orbax logs every file it opens
  cli.leave(main(sys.argv))

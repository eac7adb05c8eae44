"""Trains, evaluates, profiles and shows super-resolution networks, and runs steps again.

  python -m sr_jax.main --config configs/srgan.py:sample
  python -m sr_jax.main --config configs/srgan.py --workdir runs/srgan --mode evaluate \\
      --config.eval.sets=data/Set5,data/Set14
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
    'config', None, 'Experiment: configs/NAME.py or configs/NAME.py:VARIANT,VARIANT. '
    '--config.KEY=VALUE after it changes a key; configs/common.py says what each means.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; runs/NAME if not given.')
_MODE = flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
_STEP = flags.DEFINE_string('step', 'latest',
                            "Which checkpoint to evaluate: a step, 'latest' or 'best'. Of "
                            '--mode replay: the step to run again, as the log numbers it.')


_SIZE = flags.DEFINE_string('size', '', 'HEIGHTxWIDTH of the low-resolution picture that --mode '
                            'summary shows the generator for; that of training if not given.')


def main(argv: list[str]) -> int:
  """Does what the command line says; returns the exit status."""
  if any(argument in ('--help', '-h', '-help', '--helpshort') for argument in argv[1:]):
    flags.FLAGS.unparse_flags()
    print(f'{__doc__}\n{flags.FLAGS.module_help(sys.modules[__name__])}')
    return 0
  return cli.run(functools.partial(_run, argv))


def _parse(argv: list[str]) -> None:
  """Flags and config, every fault of theirs as one line.

  Raises:
    InputError: naming the flag, the key or the file.
  """
  try:
    rest = flags.FLAGS(argv)[1:]
    if rest:
      raise InputError(f'unexpected argument {rest[0]!r}')
    if _CONFIG.value is None:
      raise InputError('--config is missing: name an experiment, such as configs/srgan.py:sample')
    _CONFIG.value.seed  # noqa: B018, a config that was not found raises when it is looked at
    for key in (key for key in flags.FLAGS if key.startswith('config.')):
      if isinstance(_CONFIG.value[key.removeprefix('config.')], ConfigDict):
        raise InputError(f'--{key}: is a section; name a key in it, --{key}.KEY=VALUE')
  except InputError:
    raise
  except OSError:
    name = flags.FLAGS['config'].config_filename.partition(':')[0]
    raise InputError(f'{name}: no such config file') from None
  except (KeyError, AttributeError) as error:
    if 'get_config' in str(error):
      raise InputError('--config: that file is no experiment, it has no get_config()') from None
    key = re.search(r'\w+', str(error.args[0]))
    advice = re.search(r'Did you mean "(\w+)"', str(error.args[0]))
    raise InputError(f'unknown config key {(key[0] if key else "")!r}: '
                     + (f'did you mean {advice[1]!r}?' if advice else
                        'configs/common.py has them all')) from None
  except Exception as error:  # absl and ml_collections raise ten kinds, some with tracebacks
    lines = [line for line in str(error).strip().strip('"').splitlines() if line.strip()]
    line = lines[-1].strip().removeprefix('ValueError: ') if lines else repr(error)
    raise InputError(line) from None


def _run(argv: list[str]) -> int:
  _parse(argv)
  # JAX is imported late, so that --help and a mistyped flag answer at once.
  config = _CONFIG.value
  workdir = files.expand(_WORKDIR.value or default_workdir())
  from sr_jax.system import compile_cache, multihost
  count, number = multihost.process_env()
  if _MODE.value != 'train' and number:
    return 0  # of processes that were started together the first does it, alone
  compile_cache.use_cache(count if _MODE.value == 'train' else 1)
  if _MODE.value == 'train':
    with multihost.distributed(config.join_seconds):
      from sr_jax.train import train
      from sr_jax.train.stopping import Stopped
      try:
        with signals.exit_on_second_signal():
          train(config, workdir)
      except Stopped as stopped:
        return cli.refuse(f'stopped by {stopped}; the same command goes on',
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
  """runs/srgan for configs/srgan.py, runs/srgan-sample for configs/srgan.py:sample."""
  path, _, variant = flags.FLAGS['config'].config_filename.partition(':')
  return 'runs/' + '-'.join([pathlib.Path(path).stem, *filter(None, variant.split(','))])


if __name__ == '__main__':
  logging.set_verbosity(logging.ERROR)  # Orbax reports every file it opens
  cli.leave(main(sys.argv))

"""Trains, evaluates and profiles super-resolution networks.

  sr-jax train --config srgan:sample
  sr-jax evaluate --workdir runs/srgan --config.eval.sets=data/Set5,data/Set14
  sr-jax profile --config srgan --target h200

Commands (sr-jax NAME is the same as python -m sr_jax.main --mode NAME):
  train     trains a run, or resumes it from its latest checkpoint
  evaluate  scores a run's generator on benchmark sets, beside bilinear and bicubic
  profile   measures how long the parts of a training step take, and what limits it; with
            --target, computes what a step would need on a GPU that need not be there
  replay    repeats a logged training step and shows its metrics and its batch
  summary   prints the networks layer by layer, without data or a run
  examples  draws training examples: LR, HR, and the degradations that made LR, in words

Training needs --config. The others need --config or the --workdir of a run, whose settings they
then use; evaluate and replay always need the run.

--helpkeys lists all keys of a config, --helpkeys WORD ... those that match all of the words.
"""

import argparse
import collections
import functools
import pathlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from absl import flags, logging
from ml_collections import ConfigDict

from sr_jax.errors import InputError, listed
from sr_jax.experiment import config_file, reference
from sr_jax.experiment.keys import KEYS
from sr_jax.profiling import target_file
from sr_jax.system import cli, files, signals, user_code

MODES = ('train', 'evaluate', 'profile', 'replay', 'summary', 'examples')
FLAG_MODES = {'step': ('evaluate', 'replay', 'examples'), 'size': ('summary',),
              'resume': ('train',), 'target': ('profile',), 'data-gib': ('profile',),
              'output': ('examples',)}

_CONFIG = flags.DEFINE_string(
    'config', None, 'The experiment: NAME or NAME:VARIANT,VARIANT, such as srgan:sample; FILE.py '
    'or FILE.py:VARIANT; or the config.json of a run. --config.KEY=VALUE changes a key; '
    '--helpkeys explains all keys.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'The folder of the run; by default runs/NAME or runs/NAME-VARIANT.')
_MODE = flags.DEFINE_enum(
    'mode', 'train', MODES, 'Of python -m sr_jax.main: which of the commands above is run.')
_RESUME = flags.DEFINE_bool(
    'resume', False, 'train: resume a run although its optimiser, loss, batch, data or seed '
    'settings have changed. Unchanged, it is resumed without this flag.')
_STEP = flags.DEFINE_string(
    'step', 'latest', "evaluate: the checkpoint to evaluate, a step, 'latest' or 'best'. "
    'replay: the number of the step to repeat, as in the log. examples: the number of the step '
    'whose examples are drawn, by default 1.')
_IMPORT = flags.DEFINE_multi_string(
    'import', [], 'A module of your own that a config.json may name code of, as in my:Net; may be '
    'given several times.')
_SIZE = flags.DEFINE_string(
    'size', '', "summary: HEIGHTxWIDTH of the generator's low-resolution input; by default "
    'the size of the training crops.')
_TARGET = flags.DEFINE_string(
    'target', '', 'profile: instead of measuring, compiles the experiment for a GPU that need not '
    'be there, and computes memory and time on it: ' + ', '.join(target_file.TARGETS) + ' or all, '
    "as in --target h200. Needs pip install 'jax[cuda13]'.")
_DATA_GIB = flags.DEFINE_string(
    'data-gib', '', 'profile with --target: GiB of the packed training images, if these are not on '
    'this machine.')
_OUTPUT = flags.DEFINE_string('output', '', 'examples: the file to write, .png.')


class Request(NamedTuple):
  """What a command line asks for: the settings, the folder of the run, the values of --target."""

  config: ConfigDict
  workdir: pathlib.Path
  targets: Sequence[str]
  data_gib: float | None


def main(argv: list[str], command: str = '') -> int:
  """Runs a command line.

  Args:
    argv: the command line, including the program's name.
    command: the mode, if `sr-jax COMMAND` was called; --mode is refused then.

  Returns:
    The exit status.
  """
  logging.set_verbosity(logging.ERROR)  # Orbax logs every file it opens
  if any(argument in ('--help', '-h', '-help', '--helpshort') for argument in argv[1:]):
    flags.FLAGS.unparse_flags()
    text = f'{__doc__}\n{flags.FLAGS.module_help(sys.modules[__name__])}'
    return cli.run(functools.partial(print, text))
  if any(argument.partition('=')[0] in ('--helpkeys', '-helpkeys') for argument in argv[1:]):
    return cli.run(functools.partial(_help_keys, argv[1:]))
  return cli.run(functools.partial(_run, argv, command))


def _help_keys(arguments: Sequence[str]) -> None:
  """Prints the keys of a config that match the words after --helpkeys."""
  first, *words = arguments
  flag, equals, word = first.partition('=')
  rest = [argument for argument in words if argument.startswith('-')]
  if flag.lstrip('-') != 'helpkeys' or rest:
    unused = rest[0] if flag.lstrip('-') == 'helpkeys' else first
    raise InputError(f'{unused}: --helpkeys does not use it; expected only words after --helpkeys, '
                     'such as --helpkeys learning rate')
  print(reference.helpkeys([word, *words] if equals else words))


def parse(argv: Sequence[str], command: str = '') -> Request:
  """Parses the flags and loads the config, without importing JAX.

  Args:
    argv, command: of `main`.

  Raises:
    InputError: names the flag, the key or the file, in one line.
  """
  try:
    flags.FLAGS.set_gnu_getopt()  # flags may follow the value of --config.KEY VALUE
    rest = flags.FLAGS(argv, known_only=True)[1:]
  except flags.Error as error:
    raise InputError(error) from None
  settings = _parse_settings(rest)
  if command and flags.FLAGS['mode'].present:
    raise InputError(f'--mode: sr-jax {command} does not use it; run sr-jax {_MODE.value} instead')
  if command:
    flags.FLAGS['mode'].value = command
  mode = _MODE.value
  for flag in flags.FLAGS.get_key_flags_for_module(sys.modules[__name__]):
    if flag.present > 1 and flag.name != 'import':
      raise InputError(f'--{flag.name}: is given {flag.present} times; give it once')
  for name, modes in FLAG_MODES.items():
    if flags.FLAGS[name].present and mode not in modes:
      raise InputError(f'--{name}: {mode} does not use it; it is for {listed(modes)}')
  targets = _parse_target()
  if _WORKDIR.value == '':
    raise InputError('--workdir: the name is empty (is a shell variable not set?)')
  workdir = files.expand(_WORKDIR.value) if _WORKDIR.value else None
  try:
    for module in _IMPORT.value:
      cli.allow_import(module)
  except InputError as error:
    raise InputError(f'--import {error}') from None
  user_code.allow_named(settings)  # before a config.json is read, which may name the same modules
  if _CONFIG.value:
    if mode == 'summary' and workdir:
      raise InputError(f'--workdir {workdir}: summary describes --config {_CONFIG.value}; '
                       'give only one of the two')
    config = config_file.override(config_file.load(_CONFIG.value, mode, settings), settings,
                                  _CONFIG.value)
    workdir = workdir or _default_workdir(_CONFIG.value, mode)
    _refuse_unused(config, settings, workdir, mode)
    return Request(config, workdir, *targets)
  if workdir is None:
    raise InputError('--config is missing: name an experiment, such as srgan:sample'
                     + ('' if mode == 'train' else ', or the --workdir of a run'))
  if mode == 'train':
    path = workdir / 'config.json'
    raise InputError('--config is missing: name an experiment, such as srgan:sample'
                     + (f'; --config {path} resumes this run with its settings'
                        if path.exists() else ''))
  return Request(_settings_of_run(workdir, settings, mode), workdir, *targets)


def _parse_target() -> tuple[Sequence[str], float | None]:
  """Returns the values of --target and --data-gib; ((), None) without them."""
  if not flags.FLAGS['target'].present:
    if flags.FLAGS['data-gib'].present:
      raise InputError('--data-gib: is for --target, as in --target h200 --data-gib 12')
    return (), None
  targets = target_file.parse_targets(_TARGET.value)
  if not flags.FLAGS['data-gib'].present:
    return targets, None
  try:
    return targets, cli.number(float, 0.001, 1e6)(_DATA_GIB.value)
  except argparse.ArgumentTypeError as error:
    raise InputError(f'--data-gib {error}') from None


def _parse_settings(arguments: Sequence[str]) -> dict[str, str]:
  """Returns {'eval.sets': 'a,b'} for --config.eval.sets=a,b, and refuses all other arguments."""
  settings, rest, given = {}, list(arguments), collections.Counter()
  while rest:
    argument = rest.pop(0)
    name, equals, value = argument.lstrip('-').partition('=')
    if not argument.startswith('-'):
      raise InputError(f'unexpected argument {argument!r}: expected only flags, see --help')
    negated, name = name.startswith('noconfig.'), name.removeprefix('no')
    if not name.startswith('config.'):
      flag = argument.partition('=')[0]
      raise InputError(f'{argument}: unknown flag; '
                       + cli.suggestion(flag, ('config', 'workdir', 'mode', 'helpkeys',
                                               *FLAG_MODES)))
    key = name.removeprefix('config.')
    switch = key in KEYS and KEYS[key].type is bool
    if not equals and switch:
      value = str(not negated)
    elif negated:
      raise InputError(f'{argument}: only a key that is True or False can be negated')
    elif not equals:
      if not rest:
        raise InputError(f'{argument}: expected a value, as in --config.{key}=VALUE')
      value = rest.pop(0)
    given[key] += 1
    settings[key] = value
  for key, times in given.items():
    if times > 1:
      raise InputError(f'--config.{key}: is given {times} times; give it once')
  return settings


def _settings_of_run(workdir: pathlib.Path, settings: Mapping[str, str], mode: str) -> ConfigDict:
  """Returns the settings of a run with the changes that a mode can use."""
  from sr_jax.runs import metadata
  metadata.read_config(workdir)
  config = config_file.load_run(workdir, mode, settings)
  _refuse_unused(config, settings, workdir, mode)
  return config


def _refuse_unused(config: ConfigDict, settings: Mapping[str, str], workdir: pathlib.Path,
                   mode: str) -> None:
  if settings and mode in ('evaluate', 'replay'):
    from sr_jax.experiment import compatibility  # imports JAX, which other modes need not wait for
    compatibility.refuse_unused(workdir, config, settings, mode)


def _run(argv: list[str], command: str) -> int:
  config, workdir, targets, data_gib = parse(argv, command)
  # JAX is imported late, so that --help and mistyped flags are answered at once.
  from sr_jax.system import compile_cache, multihost
  count, number = multihost.process_env()
  if _MODE.value != 'train' and number:
    return 0  # of several processes, the first does everything but training alone
  if targets:
    from sr_jax.profiling import gpu_compiler
    gpu_compiler.use_cpu_alone()
  else:
    compile_cache.use_cache(count if _MODE.value == 'train' else 1)
  if _MODE.value == 'train':
    with multihost.distributed(config.join_seconds):
      from sr_jax.train import train
      from sr_jax.train.stopping import Stopped
      try:
        with signals.exit_on_second_signal():
          train(config, workdir, _RESUME.value)
      except Stopped as stopped:
        name = signal.Signals(stopped.signal).name
        return cli.refuse(f'Stopped by {name}. Run the same command to resume',
                          128 + stopped.signal)
  elif _MODE.value == 'evaluate':
    from sr_jax.evaluate import evaluate
    from sr_jax.report import page
    evaluate(workdir, step=_STEP.value, config=config)
    print(f'\n{page.write([workdir])}')
  elif _MODE.value == 'replay':
    from sr_jax.train.replay import replay_run
    replay_run(config, workdir, _STEP.value)
  elif _MODE.value == 'summary':
    from sr_jax.profiling.summary import summarize
    print(summarize(config, _SIZE.value))
  elif _MODE.value == 'examples':
    from sr_jax.train.examples import draw_examples
    step = _STEP.value if flags.FLAGS['step'].present else 1
    draw_examples(config, workdir, _OUTPUT.value, step)
  elif targets:
    from sr_jax.profiling.target import profile_target
    profile_target(config, workdir, targets, data_gib)
  else:
    from sr_jax.profiling.run import profile_run
    profile_run(config, workdir)
  return 0


def _default_workdir(spec: str, mode: str) -> pathlib.Path:
  """Returns runs/srgan for srgan or configs/srgan.py, and runs/srgan-sample for srgan:sample.

  A config.json names the run that it lies in, which must not be started over by mistake.
  """
  name, _, variant = spec.partition(':')
  path = files.expand(name)
  if path.suffix.lower() != '.json':
    return pathlib.Path('runs', '-'.join([path.stem, *filter(None, variant.split(','))]))
  if mode == 'train':
    raise InputError(f'--workdir is missing: --workdir {path.parent} resumes that run, another '
                     'folder starts a new run with its settings')
  return path.parent


if __name__ == '__main__':
  cli.leave(main(sys.argv))

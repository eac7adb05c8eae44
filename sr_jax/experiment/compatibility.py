"""Whether a run may be resumed or evaluated with a config."""

import fnmatch
import json
import pathlib
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from sr_jax.errors import InputError, listed
from sr_jax.experiment import inputs, optimizer, values
from sr_jax.experiment.check import describe_steps
from sr_jax.experiment.key import RESUME
from sr_jax.experiment.keys import KEYS, find_key
from sr_jax.experiment.named_keys import named_key
from sr_jax.models import architecture, factory
from sr_jax.models.factory import differing_keys
from sr_jax.runs.metadata import read_config

# The keys that a mode takes from the config; all others are settings of the run.
CHANGEABLE = {'evaluate': ('eval.*', 'data.degrade.*', 'dtype', 'data.download',
                           'generator.window'),
              'replay': ('data.*', 'device_loop')}


def as_json(config: ConfigDict) -> dict[str, Any]:
  """Returns the config as the plain dict that config.json contains."""
  return json.loads(config.to_json_best_effort())


def check_against(workdir: pathlib.Path, config: ConfigDict, keys: Sequence[str],
                  advice: str = '', ignored: Sequence[str] = ()) -> None:
  """Refuses a run whose config.json differs from `config` in one of `keys`.

  Comparing the shapes of arrays would not do: a network's skip, output and activations have none.

  Args:
    advice: what to do about a difference, for the message.
    ignored: fields of the networks that may differ, such as 'generator.window'.

  Raises:
    InputError: there is no run, or a key differs.
  """
  trained, wanted = read_config(workdir), as_json(config)
  for key in keys:
    want = _described(wanted, key, f'config.{key}.')
    try:
      have = _described(trained, key, f'{key}.')
    except InputError as error:
      raise InputError(f'{workdir}/config.json: {error}') from None
    except (KeyError, AttributeError, TypeError):
      raise InputError(f'{workdir}/config.json: contains no known {key}') from None
    for field in differing_keys(have, want):
      if field in ignored:
        continue
      raise InputError(f'{workdir}: the run has {field}={have.get(field)!r}, the config '
                       f'{want.get(field)!r}' + (f'; {advice}' if advice else ''))


def refuse_unused(workdir: pathlib.Path, config: ConfigDict, keys: Collection[str],
                  mode: str) -> None:
  """Refuses keys that a mode takes from the run if they have other values there.

  Args:
    keys: full names of the keys that were given on the command line.
    mode: a key of CHANGEABLE.

  Raises:
    InputError: names the key and both values; or there is no run.
  """
  keys = [key for key in keys if not _is_changeable(key, mode)]
  trained = read_config(workdir) if keys else {}
  run, given = values.flat(trained), values.flat(as_json(config))
  for key in keys:
    if given[key] != run.get(key) and not _is_split_of_imported(key, trained):
      raise InputError(f'--config.{key}: is a setting of the run in {workdir}, which has '
                       f'{run.get(key)!r}, not {given[key]!r}; the keys that {mode} can '
                       f'change are {", ".join(CHANGEABLE[mode])}')


def describe_unused(trained: dict[str, Any], config: ConfigDict, mode: str) -> str:
  """Returns 'config.batch_size 16 (not 8)' of what a mode takes from the run, not the config.

  Args:
    trained: config.json of the run.
    mode: a key of CHANGEABLE.
  """
  imported = bool(trained.get('imported'))  # no config describes its network
  run, given = values.flat(trained), values.flat(as_json(config))
  named = dict.fromkeys(filter(named_key, (*run, *given)))  # None where the other lacks an entry
  run, given = named | run, named | given
  derived = _derived(given)
  return listed([f'config.{key} {run[key]!r} (not {given[key]!r})' for key in given
                 if key in run and run[key] != given[key] and key not in derived
                 and (imported or key.partition('.')[0] != 'generator')
                 and not _is_changeable(key, mode)])


def check_resumable(workdir: pathlib.Path, before: dict[str, Any], step: int,
                    config: ConfigDict) -> None:
  """Refuses to take a run up again that `config` does not fit, before anything is built.

  Args:
    before, step: config.json of the run and the step of its latest checkpoint.

  Raises:
    InputError: the networks, scale, initial weights, frozen arrays or the optimisers in use differ;
      the run is past `config.steps` or in another phase than it would be with `config`; or it holds
      imported weights.
  """
  if before.get('imported'):
    raise InputError(f'{workdir}: contains imported weights and cannot be resumed; train in a new '
                     f'--workdir with --config.init_from={workdir}')
  check_against(workdir, config, ('generator', 'discriminator', 'scale', 'train_only', 'freeze'),
                'train in a new --workdir')
  differing = changes(before, config)
  for key in ('init_from', 'generator.init', 'discriminator.init'):
    if key in differing:
      raise InputError('{}: the run has {}={!r}, the config {!r}; a run starts from it once; train '
                       'in a new --workdir'.format(workdir, key, *differing[key]))
  if step > config.steps:
    raise InputError(f'{describe_steps(config, "")}: the run in {workdir} is at step {step}')
  if 'warmup_steps' not in before:
    raise InputError(f'{workdir}/config.json: contains no warmup_steps')
  warmups = before['warmup_steps'], config.warmup_steps
  if min(warmups) < step <= max(warmups):  # past its warm-up by one of the two only
    raise InputError(f'{describe_steps(config, "warmup_")}: the run in {workdir} is at step {step} '
                     f'with a warm-up of {warmups[0]}')
  in_use = ['d'] * (config.discriminator.name != 'none')
  for section in (*in_use, 'warmup' if step <= warmups[0] else 'g'):
    had = values.flat(before).get(f'optimizer.{section}.name', 'adam')
    if had != config.optimizer[section].name:
      raise InputError(
          f'{workdir}: the run has optimizer.{section}.name={had!r}, the config '
          f'{config.optimizer[section].name!r}, for which its optimiser state is of no use; train '
          f'in a new --workdir, from its weights with --config.init_from={workdir}')


def changes(before: dict[str, Any], config: ConfigDict) -> dict[str, list]:
  """Returns {key: [value in `before`, value in `config`]} of the keys that differ.

  Numbers of steps that are computed from epochs are not compared, because the epochs are. Fields of
  the networks are not compared either: `check_resumable` knows which of them matter.

  Args:
    before: config.json of a run.
    config: as `check` returns it.
  """
  old = {name: key.default for name, key in KEYS.items()} | values.flat(before)
  new = values.flat(as_json(config))
  derived = _derived(new)
  new |= {key: None for key in old if named_key(key) and key not in new}  # removed entries
  return {key: [_listed(old.get(key)), new[key]] for key in new
          if _listed(old.get(key)) != new[key] and key not in derived
          and (key.partition('.')[0] not in values.NETWORKS or key.endswith('.init'))}


def rescheduled(before: dict[str, Any], config: ConfigDict) -> dict[str, list]:
  """Returns {key: [before, now]} of what changes the learning rate of the steps still to come.

  These are the numbers of steps and epochs, where a schedule depends on the length of its phase.
  The warm-up's are not among them: every change of them counts as one of the run's result.

  Args:
    before: config.json of a run.
    config: with epochs converted to steps.
  """
  steps = [before.get('steps'), config.steps]
  sections = ('g', 'd') if config.discriminator.name != 'none' else ('g',)
  if steps[0] == steps[1] or not any(
      optimizer.depends_on_steps(config.optimizer[section]) for section in sections):
    return {}
  epochs = {'epochs': [before.get('epochs', 0), config.epochs]}
  return epochs if epochs['epochs'][0] != epochs['epochs'][1] else {'steps': steps}


def refuse_changed(workdir: pathlib.Path, step: int, changed: dict[str, list], streamed: bool,
                   rates: Mapping[str, list] = types.MappingProxyType({})) -> None:
  """Refuses to resume a run whose result would depend on settings that it was not started with.

  Args:
    step: of its latest checkpoint.
    changed: of `changes`.
    streamed: whether the run was last fed by a stream.
    rates: of `rescheduled`.

  Raises:
    InputError: names the keys with both values, and what to do.
  """
  mode = changed.get('data.mode', [None, 'auto'])[1]
  same_batches = mode == 'auto' or (mode == 'stream') == streamed
  keys = {key: both for key, both in changed.items() if find_key(key).change == RESUME
          and not (key == 'data.mode' and same_batches)} | dict(rates)
  if keys:
    raise InputError(f'{workdir}: settings have changed since the last start: '
                     f'{describe_changes(keys)}; --resume continues from step {step} with the new '
                     'ones, a new --workdir starts a new run')


def refuse_finished(workdir: pathlib.Path, step: int, changed: dict[str, list]) -> None:
  """Refuses to start a finished run with a changed config, which would have no effect.

  Raises:
    InputError: `changed` is not empty.
  """
  if changed:
    raise InputError(f'{workdir}: this run finished at step {step} with other settings: '
                     f'{describe_changes(changed)}; train with the new ones in a new --workdir, or '
                     f'continue this run with them: --resume and --config.steps above {step}')


def describe_changes(changed: dict[str, list]) -> str:
  """Returns 'config.batch_size 16 -> 8, config.ema 0.999 -> 0.99'."""
  return listed([f'config.{key} {before!r} -> {now!r}'
                 for key, (before, now) in changed.items()])


def _is_changeable(key: str, mode: str) -> bool:
  return any(fnmatch.fnmatchcase(key, pattern) for pattern in CHANGEABLE[mode])


def _is_split_of_imported(key: str, trained: dict[str, Any]) -> bool:
  """Returns whether a key determines the images of 'split:test' because the run has no data."""
  section, _, last = key.partition('.')
  return section == 'data' and last in inputs.SPLIT_KEYS and 'data' not in trained


def _derived(config: dict[str, Any]) -> list[str]:
  """Returns the numbers of steps that are computed from epochs in a flat config."""
  return [steps for epochs, steps in (('epochs', 'steps'), ('warmup_epochs', 'warmup_steps'),
                                      ('eval.every_epochs', 'eval.every')) if config[epochs]]


def _listed(value: Any) -> Any:
  """Returns a tuple as the list that JSON makes of it."""
  return list(value) if isinstance(value, tuple) else value


def _described(config: dict[str, Any], key: str, where: str) -> dict[str, Any]:
  """Returns {name: value} of what a config means under `key`.

  A network's fields include the module's own defaults, so that a default may move from a config to
  its module without making old and new runs differ.

  Args:
    where: prefix of a network's field in messages.
  """
  if key not in ('generator', 'discriminator'):
    return {key: config[key]}
  fields = config[key]
  module = (factory.build_generator(fields, config['scale'], config['dtype'], where)
            if key == 'generator' else factory.build_discriminator(fields, config['dtype'], where))
  return {f'{key}.name': fields['name']} | {
      f'{key}.{name}': value for name, value in architecture(module).items()}

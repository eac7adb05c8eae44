"""A run's first state: fresh, resumed, or from other weights."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import traverse_util

from sr_jax.errors import InputError
from sr_jax.models import architecture, factory, variable_shapes
from sr_jax.restore import Model, load
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.metadata import read_config
from sr_jax.step.state import TrainState


def stopped_at(workdir) -> tuple[int | None, dict]:
  """(latest step, config.json) of a run that is there to go on with; or (None, {}).

  A damaged checkpoint is passed over, and a line says so.

  Raises:
    InputError: there are checkpoints and none is whole; or no config.json beside them.
  """
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    latest = checkpoints.latest()
  finally:
    checkpoints.close()
  return latest, {} if latest is None else read_config(workdir)


def run_state(target: TrainState, workdir, step: int) -> TrainState:
  """What the checkpoint of `step` of a run holds; `target` gives names, shapes and places.

  Raises:
    InputError: none there, damaged, or of another architecture or optimiser.
  """
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    return checkpoints.restore(target, step)
  finally:
    checkpoints.close()


def initial(config) -> Model:
  """The generator that `config.init_from` names, if the config's may start from it.

  Raises:
    InputError: it can not be read, or is another network; another scale is none.
  """
  generator = factory.build_generator(dict(config.generator.items()), config.scale, config.dtype)
  try:  # what nobody can know of a file's network is as the config has it
    model = load(config.init_from, assumed=architecture(generator))
  except InputError as error:
    raise InputError(f'config.init_from: {error}') from None
  factory.refuse_unless_equal(model.generator, model.origin, generator, 'the config', ('scale',),
                           '--config.generator.')
  return model


def start_from(state: TrainState, generator, model: Model) -> tuple[TrainState, list, list]:
  """`state` with the weights of `model`, as weights and as average.

  Of another scale, what `generator.trunk` computes with is taken and the upsampling stays
  fresh (EDSR, Lim et al. 2017, section 3.3, trains x3 and x4 so from x2).

  Returns:
    (state, names of the arrays taken, names of those left fresh).

  Raises:
    InputError: another scale, and a network without a trunk.
  """
  fresh = traverse_util.flatten_dict(state.ema, sep='/')
  given = traverse_util.flatten_dict(model.variables, sep='/')
  taken = list(fresh)
  if model.scale != generator.scale:
    trunk = traverse_util.flatten_dict(variable_shapes(generator, 'trunk'), sep='/')
    taken = [name for name in fresh if name in trunk]
    if not taken:
      raise InputError(f'{model.origin}: of scale {model.scale}; at scale {generator.scale} '
                       f'nothing of a {type(generator).__name__} can be taken over')
  ema = {name: jnp.asarray(given[name]) if name in taken else array
         for name, array in fresh.items()}
  ema = {'batch_stats': {}} | traverse_util.unflatten_dict(ema, sep='/')
  # Copies: the step donates the state, and a buffer can't be given away twice.
  copies = jax.tree.map(jnp.copy, ema)
  g = state.g._replace(params=copies['params'], batch_stats=copies['batch_stats'])
  return state._replace(g=g, ema=ema), taken, [name for name in fresh if name not in taken]


def layers(names: Sequence[str]) -> str:
  """'head, body_0 to body_15' of the names of arrays."""
  numbers = {}
  for layer in dict.fromkeys(name.split('/')[1] for name in names):
    stem, _, number = layer.rpartition('_')
    numbers.setdefault(*((stem, []) if number.isdecimal() else (layer, None)))
    if number.isdecimal():
      numbers[stem].append(int(number))
  return ', '.join(stem if not found else f'{stem}_{min(found)}' + (
      f' to {stem}_{max(found)}' if len(found) > 1 else '') for stem, found in numbers.items())

"""The weights that a new run starts with, where `config.init_from` names some."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

from sr_jax.errors import InputError
from sr_jax.models import architecture, factory, variable_shapes
from sr_jax.models.stem import STEMS
from sr_jax.restore import Model, load
from sr_jax.step.flat import named_arrays, store_named
from sr_jax.step.state import TrainState

# Where a generator has the variables of its `stem_network` (see `sr_jax.models`), and which of its
# fields determine those of that network.
STEM = 'stem_trunk'
STEM_FIELDS = {'features': 'stem_features', 'blocks': 'stem_blocks', 'channels': 'channels',
               'unshuffle': 'unshuffle'}


class Sources(NamedTuple):
  """Where the arrays of a new run come from.

  Attributes:
    loaded: names of the arrays that come from the initial model.
    initialised: names of those that are newly initialised.
    unused: names of the model's arrays that are not loaded.
  """

  loaded: list[str]
  initialised: list[str]
  unused: list[str]


def load_initial(config: ConfigDict) -> Model:
  """Loads the generator that `config.init_from` names.

  Raises:
    InputError: it can't be read, or is neither the config's network, but for its scale, nor the one
      of its stem.
  """
  generator = factory.build_generator(dict(config.generator.items()), config.scale, config.dtype)
  try:
    stem = _stem_network(generator)
  except ValueError as error:  # the module itself refuses a field
    raise InputError(f'config.generator: {error}') from None
  try:  # fields that a weight file can't tell are assumed to be the config's
    model = load(config.init_from, assumed=architecture(generator) | architecture(stem))
  except InputError as error:
    raise InputError(f'config.init_from: {error}') from None
  if stem is None or type(model.generator) is type(generator):
    factory.refuse_unless_equal(model.generator, model.origin, generator, 'the config', ('scale',),
                                '--config.generator.')
  else:
    _refuse_other_stem(model, generator, stem)
  return model


def _stem_network(generator: nn.Module) -> nn.Module | None:
  return generator.stem_network() if hasattr(generator, 'stem_network') else None


def _refuse_other_stem(model: Model, generator: nn.Module, stem: nn.Module) -> None:
  """Raises InputError unless the trunk of a model is that of `stem`."""
  theirs, ours = architecture(model.generator), architecture(stem)
  for field in factory.differing_keys(theirs, ours):
    if field in ('scale', 'upsample'):  # of the tail
      continue
    advice = f'expected {field}={ours.get(field)!r}'
    if field == 'network' and model.name in STEMS:
      advice = f'add --config.generator.stem={model.name}'
    elif field == 'network':
      advice = f'expected an {ours[field]}, or a {type(generator).__name__} as a whole'
    elif field in STEM_FIELDS:
      advice = f'add --config.generator.{STEM_FIELDS[field]}={theirs[field]}'
    raise InputError(f'config.init_from: {model.origin} has {field}={theirs.get(field)!r}, but the '
                     f"config's stem {ours.get(field)!r}; {advice}")


def start_from(state: TrainState, generator: nn.Module,
               model: Model) -> tuple[TrainState, Sources]:
  """Puts the weights of `model` into `state`, as weights and as their average.

  If the scales differ, the arrays that `generator.trunk` uses are loaded and the upsampling
  stays newly initialised. EDSR (Lim et al. 2017, section 3.3) trains x3 and x4 from x2 like this.
  If the model is the network of the generator's stem, its trunk is loaded there.

  Raises:
    InputError: the scales differ and the network has no trunk.
  """
  arrays = named_arrays(state.ema)
  given = traverse_util.flatten_dict(model.variables, sep='/')
  origins = {name: name for name in arrays}  # names in the model
  stem = _stem_network(generator)
  if stem is not None and type(model.generator) is type(stem):
    origins = {name: name.replace(f'/{STEM}/', '/', 1) for name in arrays
               if name.split('/')[1] == STEM}
  elif model.scale != generator.scale:
    trunk = traverse_util.flatten_dict(variable_shapes(generator, 'trunk'), sep='/')
    origins = {name: name for name in arrays if name in trunk}
    if not origins:
      raise InputError(f'{model.origin}: has scale {model.scale}, the config {generator.scale}, '
                       f'and a {type(generator).__name__} has no arrays that both scales share')
  ema = arrays | {name: jnp.asarray(given[origin]) for name, origin in origins.items()}
  ema = store_named(state.ema, ema)
  # Copies, because the step donates the state and a buffer can't be donated twice.
  g = state.g._replace(**jax.tree.map(jnp.copy, ema)._asdict())
  sources = Sources(list(origins), [name for name in arrays if name not in origins],
                    [name for name in given if name not in origins.values()])
  return state._replace(g=g, ema=ema), sources

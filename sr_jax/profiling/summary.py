"""Describes the networks of a config layer by layer, and the generator's receptive field."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax import models
from sr_jax.errors import InputError
from sr_jax.experiment.check import check_given
from sr_jax.experiment.phases import select_trainable
from sr_jax.inference import locality, tiles
from sr_jax.models import factory, failures
from sr_jax.step.parameter_table import parameter_table

MAX_SIDE = 16_384  # tracing takes no memory, but a larger number is probably a typing error
TABLE_WIDTH = 140  # characters: name, two shapes, FLOPs, arrays


def summarize(config: ConfigDict, size: str = '') -> str:
  """Returns tables of the generator and the discriminator, made by flax's tabulate.

  Nothing is trained, read or computed: the networks are traced for one image, and XLA counts the
  FLOPs of each call (a multiplication and an addition are two) before it optimises.

  Args:
    size: 'HEIGHTxWIDTH' of the generator's low-resolution input; '' means the size of training
      crops, which are all that a discriminator sees.

  Raises:
    InputError: an invalid config or size.
  """
  config = check_given(config, 'summary')
  height, width = _input_size(config, size)
  generator = factory.build_generator(dict(config.generator.items()), config.scale, config.dtype)
  discriminator = factory.build_discriminator(dict(config.discriminator.items()), config.dtype)
  try:
    shapes = models.variable_shapes(generator)
  except InputError as error:
    raise InputError(f'config.generator: {error}') from None
  lr = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
  crop = jax.ShapeDtypeStruct((1, config.hr_patch, config.hr_patch, 3), jnp.float32)
  parts = [_describe(f'Generator {config.generator.name}', generator, lr,
                     receptive_field(generator)),
           'Arrays of the generator, by the names that config.train_only and config.freeze match',
           parameter_table(shapes['params'],
                           select_trainable(config, generator))]
  if discriminator is not None:
    parts.append(_describe(f'Discriminator {config.discriminator.name}', discriminator, crop))
  return '\n'.join(parts)


def receptive_field(generator: nn.Module) -> tuple[int | None, str]:
  """Returns the side of the square of low-resolution pixels on which one output pixel depends.

  For some output pixels the true value is smaller by one on either side, depending on their
  position between the low-resolution pixels.

  Returns:
    (side, ''), or (None, reason) if a pixel depends on the whole image or on its position.
  """
  unshuffle = getattr(generator, 'unshuffle', 1)
  found = locality.examine(generator.apply, models.variable_shapes(generator),
                           (unshuffle, 3, jnp.float32))
  if found.reach is None:
    return None, found.reason
  return 2 * tiles.ceil_pixels(found.reach * unshuffle) + 1, ''


def _input_size(config: ConfigDict, size: str) -> tuple[int, int]:
  if not size:
    return (config.hr_patch // config.scale,) * 2
  parts = size.lower().split('x')
  if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= MAX_SIDE for part in parts):
    raise InputError(f'--size {size!r}: expected HEIGHTxWIDTH in low-resolution pixels, such as '
                     f'180x320, with sides of at most {MAX_SIDE:,}')
  return int(parts[0]), int(parts[1])


def _describe(title: str, module: nn.Module, image: jax.ShapeDtypeStruct,
              field: tuple[int | None, str] | None = None) -> str:
  """Returns a network's table, and a line of its shapes, parameters and FLOPs.

  Args:
    field: its receptive field, as `receptive_field` returns it.
  """
  tabulate = nn.tabulate(module, jax.random.key(0), compute_flops=True,
                         console_kwargs={'width': TABLE_WIDTH, 'force_terminal': False})
  table = ''

  def trace(image: jax.Array) -> None:
    # tabulate accepts a tracer, but not a ShapeDtypeStruct; an array would take its memory.
    nonlocal table
    table = tabulate(image)

  with failures.one_line(module, f'{title}: cannot process an input of {_shape(image)}: '):
    jax.eval_shape(trace, image)
    variables = jax.eval_shape(module.init, jax.random.key(0), image)
    result = jax.eval_shape(module.apply, variables, image)
  flops = jax.jit(module.apply).lower(variables, image).cost_analysis()['flops']
  parameters = sum(array.size for array in jax.tree.leaves(variables['params']))
  lines = [table.rstrip(), '',
           f'{title}: {_shape(image)} to {_shape(result)}; {parameters:,} parameters; '
           f'{flops / 1e9:,.3f} GFLOP']
  if field:
    side, reason = field
    lines.append(f'Receptive field: {side}x{side} low-resolution pixels' if side else
                 f'Receptive field: the whole image ({reason})')
  return '\n'.join(lines)


def _shape(array: jax.ShapeDtypeStruct) -> str:
  return 'x'.join(map(str, array.shape))

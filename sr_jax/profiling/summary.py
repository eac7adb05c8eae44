"""--mode summary: the networks of a config layer by layer, and how far the generator sees."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax import models
from sr_jax.errors import InputError
from sr_jax.experiment.check import check
from sr_jax.inference import tiles
from sr_jax.models import factory

LARGEST = 16_384  # side; the trace alone takes no memory, but a typing error should be told
WIDTH = 140  # columns of text: a name, two shapes, FLOPs, arrays


def summarize(config, size: str = '') -> str:
  """Tables of the generator and the discriminator, through flax's tabulate.

  Nothing is trained, read or computed: the networks are traced, on one picture, and XLA counts
  the operations of each call (a multiplication and an addition are two) before it optimises.

  Args:
    size: of the generator's low-resolution picture, 'HEIGHTxWIDTH'; '' is that of the crops in
      training, which are all that a discriminator sees.

  Raises:
    InputError: a config or a size that makes no sense.
  """
  check(config)
  height, width = _sides(config, size)
  generator = factory.build_generator(dict(config.generator.items()), config.scale, config.dtype)
  discriminator = factory.build_discriminator(dict(config.discriminator.items()), config.dtype)
  lr = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
  crop = jax.ShapeDtypeStruct((1, config.hr_patch, config.hr_patch, 3), jnp.float32)
  parts = [_describe(f'Generator {config.generator.name}', generator, lr,
                     receptive_field(generator))]
  if discriminator is not None:
    parts.append(_describe(f'Discriminator {config.discriminator.name}', discriminator, crop))
  return '\n'.join(parts)


def receptive_field(generator) -> int:
  """The side of the square of low-resolution pixels that one pixel of the result is made of.

  Kernels are added up along the way through the network, at the resolution of each. It may be one
  pixel less on a side, by where the pixel lies between the low-resolution ones.
  """
  probe = jax.ShapeDtypeStruct((1, 48, 48, 3), jnp.float32)
  reach = tiles.reach(generator.apply, models.variable_shapes(generator), probe)
  reach += getattr(generator, 'tail_interpolates', 0)
  return 2 * tiles.ceil_pixels(reach) + 1


def _sides(config, size: str) -> tuple[int, int]:
  if not size:
    return (config.hr_patch // config.scale,) * 2
  parts = size.lower().split('x')
  if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= LARGEST for part in parts):
    raise InputError(f'--size {size!r}: expected HEIGHTxWIDTH in low-resolution pixels, such as '
                     f'180x320, at most {LARGEST:,} a side')
  return int(parts[0]), int(parts[1])


def _describe(title: str, module, picture, field: int | None = None) -> str:
  table = nn.tabulate(module, jax.random.key(0), compute_flops=True,
                      console_kwargs={'width': WIDTH, 'force_terminal': False})
  drawn = ''

  def trace(picture):
    nonlocal drawn
    drawn = table(picture)  # of a tracer: tabulate itself wants an array, with its memory

  try:
    jax.eval_shape(trace, picture)
    shapes = jax.eval_shape(module.init, jax.random.key(0), picture)
    result = jax.eval_shape(module.apply, shapes, picture)
  except (ValueError, TypeError) as error:
    raise InputError(f'{title} can not take {_shape(picture)}: '
                     f'{str(error).splitlines()[0]}') from None
  flops = jax.jit(module.apply).lower(shapes, picture).cost_analysis()['flops']
  parameters = sum(array.size for array in jax.tree.leaves(shapes['params']))
  lines = [drawn.rstrip(), '',
           f'{title}: {_shape(picture)} to {_shape(result)}; {parameters:,} parameters; '
           f'{flops / 1e9:,.3f} GFLOP']
  if field:
    lines.append(f'Receptive field: {field}x{field} low-resolution pixels')
  return '\n'.join(lines)


def _shape(array) -> str:
  return 'x'.join(map(str, array.shape))

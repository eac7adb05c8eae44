"""Tries a network of the user's own as a training step calls it, before anything is written."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models import failures
from sr_jax.step.flat import named_arrays
from sr_jax.system import user_failures

COLLECTIONS = ('params', 'batch_stats')  # what a run keeps of a network's variables
OTHER_SIZE = (96, 48)  # multiples of what networks with windows or strides usually demand
BATCH = 2  # a result of one value might be taken for a batch of one


def refuse_unusable(module: nn.Module, key: str, input_shape: Sequence[int],
                    result_shape: Sequence[int] | None = None) -> None:
  """Traces a network, in training mode and not, and checks its variables and its results.

  A generator is traced at another size too, because whole images are upscaled with it. Nothing is
  computed. Networks of this package are not traced.

  Args:
    key: of the config, for messages: 'config.generator' or 'config.discriminator'.
    input_shape: [B, H, W, C]; the network is traced with `BATCH` images instead of B.
    result_shape: of a generator's result. That of a discriminator is [B] or [B, ...].

  Raises:
    InputError: the network raises an exception, has no parameters, other variables than COLLECTIONS
      or variables that are not float32, or its result has another shape or dtype; or a generator
      works at one size only. The message names the class.
  """
  if not failures.is_own(module):
    return
  images = jax.ShapeDtypeStruct((BATCH, *input_shape[1:]), jnp.float32)
  name = f'{key}: class {type(module).__name__}'
  with failures.one_line(module, f'{key}: '):
    variables = dict(jax.eval_shape(module.init, jax.random.key(0), images))
  if not jax.tree.leaves(variables.get('params', {})):
    raise InputError(f'{name}: has no parameters, so there is nothing to train')
  for collection in variables.keys() - set(COLLECTIONS):
    raise InputError(f'{name}: has variables of the collection {collection!r}; a run keeps only '
                     f'those of {" and ".join(COLLECTIONS)}')
  for path, array in named_arrays(variables).items():
    if array.dtype != jnp.float32:
      raise InputError(f'{name}: {path} is {array.dtype}, expected float32; dtype= of a layer is '
                       'that of its computation, param_dtype= that of its arrays')
  for train in (False, True):
    with failures.one_line(module, f'{key}: '):
      result = jax.eval_shape(lambda variables, images, train=train: module.apply(
          variables, images, train=train, mutable=['batch_stats'],
          rngs=_rngs(module) if train else {})[0], variables, images)
    _check_result(result, f'{name}: the result for images of {list(images.shape)} with '
                  f'train={train}', result_shape)
  if result_shape:
    _refuse_one_size(module, key, images, variables)


def _rngs(module: nn.Module) -> dict[str, jax.Array]:
  """Returns keys of the names that a generator gets in training, see `train_step.step_rngs`."""
  return {'drop_path': jax.random.key(0)} if getattr(module, 'drop_path', 0) else {}


def _refuse_one_size(generator: nn.Module, key: str, crops: jax.ShapeDtypeStruct,
                     variables: Mapping[str, Any]) -> None:
  """Raises InputError if a generator that works with `crops` fails with larger oblong images."""
  unshuffle = getattr(generator, 'unshuffle', 1)
  height, width = (side * unshuffle for side in OTHER_SIZE)
  channels = crops.shape[-1]
  images = jax.ShapeDtypeStruct((BATCH, height, width, channels), crops.dtype)
  expected = BATCH, height * generator.scale, width * generator.scale, channels
  name = f'{key}: class {type(generator).__name__}'
  reason = ''
  try:
    with user_failures.one_line('it raises'):
      result = jax.eval_shape(lambda variables, images: generator.apply(variables, images),
                              variables, images)
    _check_result(result, 'its result', expected)
  except InputError as error:
    reason = str(error)
  if reason:
    raise InputError(f'{name}: works only for LR of {crops.shape[1]}x{crops.shape[2]}, the size of '
                     f'the crops, expected any size, as whole images are upscaled; for images of '
                     f'{list(images.shape)} {reason}')


def _check_result(result: object, name: str, expected: Sequence[int] | None) -> None:
  shape = list(result.shape) if hasattr(result, 'shape') else None
  fits = shape and (shape[0] == BATCH if expected is None else shape[1:] == list(expected[1:])
                    and shape[0] == BATCH)
  if not fits or result.dtype != jnp.float32:
    found = f'{result.dtype} {shape}' if hasattr(result, 'shape') else type(result).__name__
    wanted = ([BATCH, *expected[1:]] if expected else
              f'logits, [{BATCH}] or more values for each image')
    advice = '; end with .astype(jnp.float32)' if fits else ''
    raise InputError(f'{name} is {found}, expected float32 {wanted}{advice}')

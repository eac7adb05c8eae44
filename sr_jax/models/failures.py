"""Turns exceptions of a network that is called into one line."""

import contextlib
from collections.abc import Iterator

from flax import linen as nn
from flax.errors import InvalidRngError

from sr_jax.errors import InputError
from sr_jax.system.user_failures import RAISED, described, place, shortened


def is_own(module: nn.Module) -> bool:
  """Returns whether a network is of a class of the user's own, not of this package."""
  return type(module).__module__.partition('.')[0] != 'sr_jax'


@contextlib.contextmanager
def one_line(module: nn.Module, where: str = '') -> Iterator[None]:
  """Turns an exception that `module` raises in the block into one line.

  An exception in a class of this package other than a refused value is left as it is.

  Args:
    where: prefix of the message, such as 'config.generator: '.

  Raises:
    InputError: names the class and, for one of the user's own, the exception's type and line.
  """
  name = f'{where}class {type(module).__name__}: '
  try:
    yield
  except InputError:
    raise
  except RAISED as error:  # whatever the user's code raises
    if is_own(module) and isinstance(error, InvalidRngError):
      raise InputError(f'{name}draws random numbers{place(error)}; a network gets none, '
                       'as its result must depend on its input alone: remove layers like dropout'
                       ) from None
    if is_own(module):
      raise InputError(f'{name}{described(error)}') from None
    if isinstance(error, (ValueError, TypeError)):
      raise InputError(f'{name}{shortened(error)}') from None
    raise


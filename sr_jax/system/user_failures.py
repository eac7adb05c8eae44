"""Turns exceptions of the user's own code into one line."""

import contextlib
import pathlib
import traceback
from collections.abc import Iterator

from sr_jax.errors import InputError, brief


@contextlib.contextmanager
def one_line(where: str, expected: str = '') -> Iterator[None]:
  """Turns an exception that the user's own code raises in the block into one line.

  Args:
    where: prefix of the message that names the code, such as "config.data.source='my:photos'".
    expected: what the code should be, for the end of the message about a TypeError, which another
      signature or a result of another type raises.

  Raises:
    InputError: with the exception's type, its message and the line of the user's code.
  """
  try:
    yield
  except (InputError, MemoryError):
    raise
  except Exception as error:  # whatever the user's code raises
    message = ' '.join(brief(error, 300).split())
    raise InputError(f'{where}: {type(error).__name__}: {message}{place(error)}'
                     + (f'; expected {expected}' if expected and isinstance(error, TypeError)
                        else '')) from None


def place(error: Exception) -> str:
  """Returns ' (mine.py, line 12)', the last line of code of neither a library nor this package."""
  package = str(pathlib.Path(__file__).parents[1])
  lines = [frame for frame in traceback.extract_tb(error.__traceback__)
           if 'site-packages' not in frame.filename and not frame.filename.startswith(package)
           and pathlib.Path(frame.filename).is_file() and 'lib/python' not in frame.filename]
  return f' ({lines[-1].filename}, line {lines[-1].lineno})' if lines else ''

"""Turns exceptions of the user's own code into one line."""

import contextlib
import pathlib
import traceback
from collections.abc import Iterator

from sr_jax.errors import InputError, brief

RAISED = (Exception, SystemExit)  # sys.exit() in a function would end the command without a word


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
  except RAISED as error:  # whatever the user's code raises
    raise InputError(f'{where}: {described(error)}'
                     + (f'; expected {expected}' if expected and isinstance(error, TypeError)
                        else '')) from None


def described(error: BaseException) -> str:
  """Returns 'ValueError: too small (mine.py, line 12)'; a long message is shortened."""
  message = (f'sys.exit({brief(repr(error.code), 200)}) was called'
             if isinstance(error, SystemExit) else shortened(error))
  return f'{type(error).__name__}: {message}{place(error)}'


def shortened(error: BaseException, max_chars: int = 300) -> str:
  """Returns an exception's message on one line, cut after a sentence or else after a word."""
  text = ' '.join(str(error).split())
  if len(text) <= max_chars:
    return text
  sentences = text[:max_chars + 1].rpartition('. ')[0]
  if sentences:
    return f'{sentences}.'
  return f'{text[:max_chars + 1].rpartition(" ")[0] or text[:max_chars]}...'


def place(error: BaseException) -> str:
  """Returns ' (mine.py, line 12)', the last line of code of neither a library nor this package."""
  package = str(pathlib.Path(__file__).parents[1])
  lines = [frame for frame in traceback.extract_tb(error.__traceback__)
           if 'site-packages' not in frame.filename and not frame.filename.startswith(package)
           and pathlib.Path(frame.filename).is_file() and 'lib/python' not in frame.filename]
  return f' ({lines[-1].filename}, line {lines[-1].lineno})' if lines else ''

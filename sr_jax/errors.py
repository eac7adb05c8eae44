"""InputError, the exception that the command lines print instead of raising, and text helpers."""

import re
from collections.abc import Sequence

# Control characters, unpaired surrogates, line separators and bidirectional overrides.
_CONTROL_CHARACTERS = re.compile(
    r'[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069]+')


class InputError(ValueError):
  """An invalid input of the user: a path, an image, a config key or a shape.

  The message is a single line that names the input. The command lines print it and exit with
  status 1; code that calls from Python gets an ordinary `ValueError`. Control characters are
  replaced by spaces, because text from a file must neither break the line nor send commands to
  the terminal.
  """

  def __init__(self, message: object = '') -> None:
    super().__init__(printable(message))


def printable(text: object) -> str:
  """Returns str(text) on one line, with control characters replaced by spaces."""
  return _CONTROL_CHARACTERS.sub(' ', str(text))


def brief(text: object, max_chars: int = 600) -> str:
  """Returns str(text), truncated to `max_chars`; text from a file may be megabytes long."""
  text = str(text)
  return text if len(text) <= max_chars else f'{text[:max_chars]}...'


def listed(items: Sequence, most: int = 10) -> str:
  """Returns 'a, b, c' for any items; those after the first `most` are counted: 'a and 7 more'."""
  more = len(items) - most
  return ', '.join(str(item) for item in items[:most]) + (f' and {more:,} more' if more > 0 else '')


def count_of(items: Sequence, noun: str) -> str:
  """Returns '1 file' or '12 files', the number of items."""
  return f'{len(items):,} {noun}' + ('' if len(items) == 1 else 's')

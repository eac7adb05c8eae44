"""The one exception that the command lines print instead of raising, and lists in its words."""

import re

# Control characters, halves of characters, ends of lines, what reverses the direction of writing.
_COMMANDS = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069]+')


class InputError(ValueError):
  """What the user gave is wrong: a path, a picture, a key, a shape.

  The message is a single line that names the thing. The command lines print it and
  exit with status 1; called from Python it is an ordinary `ValueError`. What a file has put into
  it can neither break the line nor command the terminal.
  """

  def __init__(self, message=''):
    super().__init__(_COMMANDS.sub(' ', str(message)))


def brief(error, most: int = 600) -> str:
  """Its words, cut off after `most` characters: of what a file says, which may be megabytes."""
  words = str(error)
  return words if len(words) <= most else f'{words[:most]}...'


def listed(things, most: int | None = 20) -> str:
  """'a, b, c' of anything, cut off after `most`; None lists all."""
  shown = ', '.join(str(thing) for thing in things[:most])
  more = 0 if most is None else max(0, len(things) - most)
  return shown + (f' and {more} more' if more else '')

"""The one exception that the command lines print instead of raising, and lists in its words."""


class InputError(ValueError):
  """What the user gave is wrong: a path, a picture, a key, a shape.

  The message is a single line that names the thing. The command lines print it and
  exit with status 1; called from Python it is an ordinary `ValueError`.
  """


def listed(things, most: int | None = 20) -> str:
  """'a, b, c' of anything, cut off after `most`; None lists all."""
  shown = ', '.join(str(thing) for thing in things[:most])
  more = 0 if most is None else max(0, len(things) - most)
  return shown + (f' and {more} more' if more else '')

"""The one exception that the command lines print instead of raising."""


class InputError(ValueError):
  """What the user gave is wrong: a path, a picture, a key, a shape.

  The message is a single line that names the thing. The command lines print it and
  exit with status 1; called from Python it is an ordinary `ValueError`.
  """

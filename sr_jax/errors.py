"""The one exception that the command lines print instead of raising."""


class InputError(ValueError):
  """What the user gave is wrong: a path, a picture, a key, a shape.

  The message is a single line that names the thing. `sr_jax.main` prints it and
  exits with status 1; called from Python it is an ordinary `ValueError`.
  """

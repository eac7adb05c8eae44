"""An image of a data set that is held in memory."""

import dataclasses
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayImage:
  """An image that is held in memory. It can be sent to another process.

  Attributes:
    name: names it in messages, such as 'my:photos[3]'.
    array: uint8 [H, W, 1 or 3].
  """

  name: str
  array: np.ndarray

  def __str__(self) -> str:
    return self.name

  @property
  def stamp(self) -> str:
    """A hash of the content, which identifies the image in the cache of packed sets."""
    digest = hashlib.blake2b(repr(self.array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(self.array))
    return f'array {digest.hexdigest()}'

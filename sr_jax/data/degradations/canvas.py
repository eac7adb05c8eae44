"""Images of different sizes in one array, so that one program serves every size."""

from typing import Any, NamedTuple, Protocol

import jax

Draws = dict[str, jax.Array]  # what a stage has drawn, by name


class Canvas(NamedTuple):
  """Images that lie in the upper left corners of equal rectangles.

  Attributes:
    pixels: float32 [B, H, W, C], nominally in [0, 1]; resizing may overshoot.
    sizes: int32 [B, 2], (height, width) of each image, at most (H, W). Image i is
      `pixels[i, :sizes[i, 0], :sizes[i, 1]]`; the pixels outside are finite and have no meaning.
  """

  pixels: jax.Array
  sizes: jax.Array


class Goal(NamedTuple):
  """What the degraded images will become.

  Attributes:
    sizes: int32 [B, 2], (height, width) of LR.
    shape: (height, width) of a rectangle that holds every LR.
  """

  sizes: jax.Array
  shape: tuple[int, int]


class Stage(Protocol):
  """One step of a degradation: a frozen dataclass of ranges and probabilities.

  A stage draws its values for each image and applies them to all images at once.
  """

  def draw(self, key: jax.Array) -> Draws:
    """Draws the values of one image."""

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Applies the stage.

    Args:
      canvas: the images.
      draws: of `draw`, [B, ...] each.
      keys: [B], for what is drawn for each pixel.
      goal: what the images will become.
    """

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns in words what was drawn for one image, such as 'JPEG of quality 43, 4:2:0'."""

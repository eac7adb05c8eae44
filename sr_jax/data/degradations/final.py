"""The end of Real-ESRGAN's chain: reduction to LR with ringing, and JPEG, in either order."""

import dataclasses
from typing import Any

import jax

from sr_jax.data.degradations.blur import Sinc
from sr_jax.data.degradations.canvas import Canvas, Draws, Goal
from sr_jax.data.degradations.jpeg import Jpeg
from sr_jax.data.degradations.resampling import REALESRGAN_METHODS
from sr_jax.data.degradations.resizing import ResizeToGoal


@dataclasses.dataclass(frozen=True)
class Final:
  """Reduces each image to the size of LR, filters it with a sinc kernel, and compresses it.

  With equal odds JPEG comes last or first (Wang et al. 2021, section 3.4: "[JPEG + sinc] or [sinc +
  JPEG]"; realesrgan/models/realesrgan_model.py resizes together with the sinc filter).

  Attributes:
    quality, subsampling: of `Jpeg`.
    sinc: probability of the sinc filter.
    size: of `Sinc`.
    methods: of `ResizeToGoal`.
  """

  quality: tuple[int, int] = (30, 95)
  subsampling: float = 1.0
  sinc: float = 0.8
  size: tuple[int, int] = (7, 21)
  methods: tuple[str, ...] = REALESRGAN_METHODS

  def _parts(self) -> tuple[ResizeToGoal, Sinc, Jpeg]:
    return (ResizeToGoal(self.methods), Sinc(self.sinc, self.size),
            Jpeg(quality=self.quality, subsampling=self.subsampling))

  def draw(self, key: jax.Array) -> Draws:
    """Draws whether JPEG comes last, and what the parts draw."""
    order_key, *part_keys = jax.random.split(key, 4)
    draws = {'jpeg_last': jax.random.bernoulli(order_key)}
    for name, part, part_key in zip(('resize', 'sinc', 'jpeg'), self._parts(), part_keys,
                                    strict=True):
      draws |= {f'{name}_{field}': value for field, value in part.draw(part_key).items()}
    return draws

  def apply(self, canvas: Canvas, draws: Draws, keys: jax.Array, goal: Goal) -> Canvas:
    """Applies the parts; the canvas of the result is `goal.shape`."""
    resize, sinc, jpeg = self._parts()
    last = draws['jpeg_last']
    # Resizing to the present size changes nothing, so each image is resized where its order says.
    shape = tuple(max(sides) for sides in zip(goal.shape, canvas.pixels.shape[1:3], strict=True))
    canvas = resize.apply_except(canvas, _of('resize', draws), goal, ~last, shape)
    filtered = _of('sinc', draws)
    before = filtered | {'blurred': filtered['blurred'] & last}
    canvas = sinc.apply(canvas, before, keys, goal)
    canvas = jpeg.apply(canvas, _of('jpeg', draws), keys, goal)
    canvas = resize.apply(canvas, _of('resize', draws), keys, goal)
    after = filtered | {'blurred': filtered['blurred'] & ~last}
    return sinc.apply(canvas, after, keys, goal)

  def describe(self, draws: dict[str, Any]) -> str:
    """Returns what was done, in the order of each image."""
    resize, sinc, jpeg = (part.describe(_of(name, draws)) for name, part in zip(
        ('resize', 'sinc', 'jpeg'), self._parts(), strict=True))
    parts = (resize, sinc, jpeg) if draws['jpeg_last'] else (jpeg, resize, sinc)
    return '; '.join(filter(None, parts))


def _of(name: str, draws: dict[str, Any]) -> dict[str, Any]:
  """Returns the draws of one part."""
  return {field.removeprefix(f'{name}_'): value for field, value in draws.items()
          if field.startswith(f'{name}_') and field != 'jpeg_last'}

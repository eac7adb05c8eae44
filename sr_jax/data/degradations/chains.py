"""Chains of stages that make LR of HR, each image with draws of its own.

`PRESETS` has the published ones: 'realesrgan' (Wang et al. 2021, "Real-ESRGAN", section 3) and
'bsrgan' (Zhang et al. 2021, "Designing a practical degradation model for deep blind image
super-resolution", section 4), and chains of one stage. The options are those of the authors'
repositories (xinntao/Real-ESRGAN, options/train_realesrgan_x4plus.yml; cszn/KAIR,
utils/utils_blindsr.py). What differs from their code:

  - Every image has its own sizes, methods and orders; theirs are shared by a batch of Real-ESRGAN.
  - JPEG is that of libjpeg, which rounds; Real-ESRGAN's is differentiable and does not.
  - BSRGAN's camera pipeline, which needs another network, is left out, and so is its reduction by
    a shifted Gaussian, a quarter of its second reduction. Its values are those of scale 4 at every
    scale; of anisotropic kernels it draws the variances uniformly, here it is the deviations.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sr_jax.data.degradations import sharpening
from sr_jax.data.degradations.blur import Blur
from sr_jax.data.degradations.canvas import Canvas, Draws, Goal, Stage
from sr_jax.data.degradations.final import Final
from sr_jax.data.degradations.jpeg import Jpeg
from sr_jax.data.degradations.noise import Impulse, Noise
from sr_jax.data.degradations.resizing import Resize, ResizeToGoal
from sr_jax.data.degradations.sharpening import Sharpen

PHASES = 8  # LR pixels on both sides of the centre that a crop may be displaced, see `Degrader`

# Every stage by the name that configs use, with Real-ESRGAN's values.
STAGES: dict[str, Stage] = {
    'blur': Blur(), 'resize': Resize(), 'noise': Noise(), 'jpeg': Jpeg(),
    'blur2': Blur(probability=0.8, sigma=(0.2, 1.5)),
    'resize2': Resize(directions=(0.3, 0.4, 0.3), factor=(0.3, 1.2), of_lr=True),
    'noise2': Noise(sigma=(1.0, 25.0), poisson=(0.05, 2.5)), 'jpeg2': Jpeg(),
    'final': Final(), 'reduce': ResizeToGoal(('bicubic',), antialias=True),
    'sharpen': Sharpen(), 'impulse': Impulse()}


@dataclasses.dataclass(frozen=True)
class Degradation:
  """A chain of stages.

  Attributes:
    stages: (name, stage) in their order.
    shuffled: (first, stop): the stages first .. stop - 1 are applied in an order that is drawn for
      each image; those that change the size keep theirs.
    margin: HR pixels on each side of a crop that are degraded with it and then cut off, so that
      no border shows.
    sharpen: weight of the unsharp mask of HR (`sharpening.unsharp_mask`); 0 leaves HR as it is.
  """

  stages: tuple[tuple[str, Stage], ...]
  shuffled: tuple[int, int] = (0, 0)
  margin: int = 72
  sharpen: float = 0.0


def make_chain(names: Sequence[str], changed: Mapping[str, Stage] | None = None,
               **fields: Any) -> Degradation:
  """Returns the chain of the stages with these names.

  Args:
    names: keys of `STAGES`, in their order.
    changed: stages that replace those of `STAGES`.
    fields: of `Degradation`.
  """
  stages = STAGES | dict(changed or {})
  return Degradation(tuple((name, stages[name]) for name in names), **fields)


PRESETS: dict[str, Degradation] = {
    'realesrgan': make_chain(('blur', 'resize', 'noise', 'jpeg', 'blur2', 'resize2', 'noise2',
                              'final'), {'resize': Resize(by_factor=True)}, sharpen=0.5),
    'bsrgan': make_chain(
        ('resize', 'blur', 'blur2', 'resize2', 'reduce', 'noise', 'jpeg', 'jpeg2'),
        {'resize': Resize(directions=(0.0, 0.25, 0.75), factor=(0.5, 0.5)),
         'blur': (gaussian := Blur(kinds=(0.5, 0.5, 0.0, 0.0, 0.0, 0.0), sinc=0.0, size=(7, 25),
                                   sigma=(0.1, 2.8))),
         'blur2': gaussian,
         'resize2': Resize(directions=(0.0, 0.75, 0.25), factor=(0.125, 1.0), inverse=True),
         'reduce': ResizeToGoal(),
         'noise': Noise(gaussian=1.0, sigma=(2.0, 25.0), grey=0.4, correlated=0.2),
         'jpeg': Jpeg(probability=0.9)},
        shuffled=(1, 7)),
    'jpeg': make_chain(('reduce', 'jpeg'), margin=16),
    'noise': make_chain(('reduce', 'noise'), margin=16),
    'blur': make_chain(('blur', 'reduce'), margin=16)}


@dataclasses.dataclass(frozen=True)
class Degrader:
  """Makes a batch of HR crops: (hr, keys) -> {'lr', 'hr'} and, where HR is sharpened, 'target'.

  Args of the call:
    hr: float32 [B, P, P, C] in [0, 1] with P = patch + 2 * margin.
    keys: JAX keys [B]; the result for an image depends on its key alone.

  Results, float32 in [0, 1]:
    lr [B, patch / scale, patch / scale, C], multiples of 1 / 255; hr [B, patch, patch, C];
    target, the sharpened hr, which LR was made of.

  Crops are displaced by up to `PHASES` LR pixels from the centre, at random, so that a network
  cannot learn where the blocks of JPEG begin. A third of the margin stays on each side, or more.

  Attributes:
    degradation: the chain.
    scale: HR / LR.
    patch: side of the HR crops of the batch, a multiple of `scale`, as P is.
  """

  degradation: Degradation
  scale: int
  patch: int

  def __call__(self, hr: jax.Array, keys: jax.Array) -> dict[str, jax.Array]:
    batch, _ = self.with_draws(hr, keys)
    return batch

  def with_draws(self, hr: jax.Array,
                 keys: jax.Array) -> tuple[dict[str, jax.Array], list[Draws]]:
    """Returns the batch of a call, and what each stage has drawn for it, for `describe`."""
    if jax.default_backend() != 'cpu':
      return self._make(hr, keys)
    # One image after the other takes less time. It is also rounded almost always in the same way,
    # however many there are, so that several devices make the batch of one.
    return lax.map(lambda image: jax.tree.map(
        lambda array: array[0], self._make(image[0][None], image[1][None])), (hr, keys))

  def _make(self, hr: jax.Array, keys: jax.Array) -> tuple[dict[str, jax.Array], list[Draws]]:
    """Computes `with_draws` for all images at once."""
    # Barriers, so that the bits don't depend on the program around this one. XLA for the CPU
    # ignores them; the loop over images serves this end there.
    hr = lax.optimization_barrier(hr)
    sizes = jnp.full((len(hr), 2), hr.shape[1], jnp.int32)
    target = sharpened(hr, self.degradation)
    chain_keys, place_keys = _split(keys)
    canvas, draws = degrade(target, sizes, chain_keys, self.degradation, self.scale)
    room = (hr.shape[1] - self.patch) // self.scale  # twice the margin, in LR pixels
    reach = min(PHASES, room // 3)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(place_keys)
    places = room // 2 - reach + jnp.floor((2 * reach + 1) * uniform).astype(jnp.int32)
    batch = {'lr': _cut(canvas.pixels, places, self.patch // self.scale),
             'hr': _cut(hr, places * self.scale, self.patch)}
    if self.degradation.sharpen:
      batch['target'] = _cut(target, places * self.scale, self.patch)
    return lax.optimization_barrier(batch), draws


def sharpened(hr: jax.Array, degradation: Degradation) -> jax.Array:
  """Returns hr [B, H, W, C] after the unsharp mask of the degradation, or as it is."""
  if not degradation.sharpen:
    return hr
  return sharpening.unsharp_mask(hr, degradation.sharpen)


def degrade(hr: jax.Array, sizes: jax.Array, keys: jax.Array, degradation: Degradation,
            scale: int) -> tuple[Canvas, list[Draws]]:
  """Makes LR of images.

  Args:
    hr: float32 [B, H, W, C] in [0, 1], sharpened before if that is wanted.
    sizes: int32 [B, 2], as in `Canvas`; multiples of `scale`, as H and W are.
    keys: JAX keys [B].
    degradation: the chain.
    scale: HR / LR.

  Returns:
    (canvas of shape (H / scale, W / scale) with values that are multiples of 1 / 255, what each
    stage has drawn). Where the order is drawn, a last dict has it: {'order': [B, n]}.
  """
  goal = Goal(sizes // scale, (hr.shape[1] // scale, hr.shape[2] // scale))
  first, stop = degradation.shuffled
  stages = [stage for _, stage in degradation.stages]
  # All keys in one call, [B, 2, stages + 1]: each call is many operations to compile and to start.
  both = jax.vmap(lambda key: jax.random.split(key, (2, len(stages) + 1)))(keys)
  draw_keys, pixel_keys = both[:, 0], both[:, 1]
  draws = [jax.vmap(stage.draw)(draw_keys[:, number]) for number, stage in enumerate(stages)]
  canvas = Canvas(hr.astype(jnp.float32), sizes)
  for number, stage in enumerate(stages):
    if number == first < stop:
      orders = _draw_orders(draw_keys[:, -1], stages[first:stop])
      canvas = _apply_in_orders(canvas, stages[first:stop], draws[first:stop],
                                [pixel_keys[:, place] for place in range(first, stop)], orders,
                                goal)
      draws.append({'order': orders})
    elif not first <= number < stop:
      with jax.named_scope(degradation.stages[number][0]):
        canvas = stage.apply(canvas, draws[number], pixel_keys[:, number], goal)
  # A config whose chain does not end at the size of LR is refused (`size_fault`).
  pixels = jnp.round(jnp.clip(canvas.pixels, 0, 1) * 255) / 255
  return canvas._replace(pixels=pixels[:, :goal.shape[0], :goal.shape[1]]), draws


def describe(degradation: Degradation, draws: Sequence[Mapping[str, Any]],
             index: int) -> list[str]:
  """Returns in words what was drawn for image `index`, in the order of application.

  Args:
    degradation: the chain.
    draws: of `degrade`.
    index: of the image in its batch.
  """
  words = [stage.describe({name: np.asarray(value[index]) for name, value in drawn.items()})
           for (_, stage), drawn in zip(degradation.stages, draws, strict=False)]
  first, stop = degradation.shuffled
  if first < stop:
    words[first:stop] = [words[first + place] for place in np.asarray(draws[-1]['order'][index])]
  return words


def size_fault(degradation: Degradation, scale: int) -> str:
  """Returns why a chain does not end at the size of LR, or ''."""
  resizing = [stage for _, stage in degradation.stages
              if isinstance(stage, (Resize, ResizeToGoal, Final))]
  if (resizing and isinstance(resizing[-1], Resize)) or (scale > 1 and not resizing):
    return ('the last stage that changes the size must be reduce or final, which make LR of '
            f'scale {scale}')
  return ''


# Random order ----------------------------------------------------------------------------


def _draw_orders(keys: jax.Array, stages: Sequence[Stage]) -> jax.Array:
  """Draws an order [B, n] of the stages for each image; stages that change the size keep theirs."""
  resizing = [place for place, stage in enumerate(stages)
              if isinstance(stage, (Resize, ResizeToGoal))]
  valid = np.array([order for order in itertools.permutations(range(len(stages)))
                    if [place for place in order if place in resizing] == resizing], np.int32)
  uniform = jax.vmap(jax.random.uniform)(keys)
  return jnp.asarray(valid)[jnp.floor(len(valid) * uniform).astype(jnp.int32)]


def _apply_in_orders(canvas: Canvas, stages: Sequence[Stage], draws: Sequence[Draws],
                     keys: Sequence[jax.Array], orders: jax.Array, goal: Goal) -> Canvas:
  """Applies stages to each image in its own order, one image after another.

  No stage may enlarge the images beyond the canvas.
  """
  shape = canvas.pixels.shape[1:3]

  def apply_one(image: tuple) -> tuple[jax.Array, jax.Array]:
    pixels, size, draws, keys, order, goal_size = image
    one_goal = Goal(goal_size[None], goal.shape)

    def branch(number: int) -> Any:
      def apply(state: Canvas) -> Canvas:
        one_draw = jax.tree.map(lambda value: value[None], draws[number])
        return _fit(stages[number].apply(state, one_draw, keys[number][None], one_goal), shape)
      return apply

    branches = [branch(number) for number in range(len(stages))]
    state = lax.fori_loop(0, len(stages),
                          lambda place, state: lax.switch(order[place], branches, state),
                          Canvas(pixels[None], size[None]))
    return state.pixels[0], state.sizes[0]

  return Canvas(*lax.map(apply_one, (canvas.pixels, canvas.sizes, list(draws), list(keys), orders,
                                     goal.sizes)))


def _fit(canvas: Canvas, shape: tuple[int, int]) -> Canvas:
  """Pads or cuts a canvas to a shape that holds all images."""
  pixels = canvas.pixels[:, :shape[0], :shape[1]]
  rows, columns = (side - found for side, found in zip(shape, pixels.shape[1:3], strict=True))
  return canvas._replace(pixels=jnp.pad(pixels, ((0, 0), (0, rows), (0, columns), (0, 0))))


def _split(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Splits keys [B] into two arrays of keys [B]."""
  pairs = jax.vmap(jax.random.split)(keys)
  return pairs[:, 0], pairs[:, 1]


def _cut(images: jax.Array, places: jax.Array, side: int) -> jax.Array:
  """Cuts squares [B, side, side, C] at places [B, 2] (row, column)."""
  def one(image: jax.Array, place: jax.Array) -> jax.Array:
    return lax.dynamic_slice(image, (place[0], place[1], 0), (side, side, image.shape[-1]))
  return jax.vmap(one)(images, places)

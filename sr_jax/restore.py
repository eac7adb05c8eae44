"""Loads a generator with its weights from a run or from a weight file; see `sr_jax.load`."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sr_jax.errors import InputError, brief
from sr_jax.inference.upscaler import DTYPES, Upscaler
from sr_jax.models import GENERATORS, factory, variable_shapes
from sr_jax.models.attention import resample_bias_table
from sr_jax.models.overlap_attention import overlap_margin, resample_overlap_table
from sr_jax.pretrained import generators
from sr_jax.pretrained.published import PUBLISHED, published_file
from sr_jax.runs import metadata
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.runs.folder import RunFolder
from sr_jax.system import files


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A generator with its weights; `sr = model(lr)` upscales an image.

  The input is a NumPy or JAX array [h, w], [h, w, C] or, for several images of one size,
  [B, h, w, C], with C 1 (grey) or 3 (RGB); uint8, uint16, or float in [0, 1]. The output is a
  NumPy array that is `scale` times larger, with the same axes; of the input's dtype, but float32
  for any float. Every new image size is compiled once; `model.upscaler(sizes=...)` lets many sizes
  share compiled programs.

  `model(lr)` has no gradient. The differentiable function of float32 [B, h, w, C] in [0, 1] is
  `model.generator.apply(model.variables, lr)`.

  Attributes:
    generator: the Flax module, float [B, h, w, C] in [0, 1] in and out.
    variables: {'params', 'batch_stats'}.
    config: the part of a config that describes it: `generator`, `scale`, `dtype`.
    family: the family of tensor names of the file that the weights came from, or ''.
    origin: a description of where the model is from, for messages.
    assumed: fields that the weight file does not determine and that have an assumed value.
    step: the step of a run's checkpoint, else 0.

  Raises:
    InputError: the call's argument is not such an image.
  """

  generator: nn.Module
  variables: dict[str, Any] = dataclasses.field(repr=False)
  config: dict[str, Any]
  family: str
  origin: str
  assumed: Sequence[str] = ()
  step: int = 0

  @property
  def scale(self) -> int:
    return self.generator.scale

  @property
  def name(self) -> str:
    """The generator's name: a key of `models.GENERATORS`, or 'module:name' of the user's own."""
    return self.config['generator']['name']

  @property
  def fields(self) -> dict[str, Any]:
    """The generator's fields that the config sets, including its scale."""
    fields = {key: value for key, value in self.config['generator'].items() if value is not None}
    return {key: value for key, value in fields.items()
            if key not in ('name', 'init')} | {'scale': self.scale}

  def with_window(self, window: int) -> 'Model':
    """Returns the model with windows of attention of another side than it was trained with.

    A rotary position embedding stays as it is; a table of position biases is interpolated
    (`attention.resample_bias_table`).

    Args:
      window: side in pixels of the features.

    Raises:
      InputError: the network has no windows of one side, or they cannot have this one.
    """
    if not hasattr(self.generator, 'window'):
      known = [name for name, make in GENERATORS.items() if hasattr(make(), 'window')]
      raise InputError(f'window={window}: {self.name} of {self.origin} has no such field; networks '
                       f'that have it: {", ".join(known)}')
    if window == self.generator.window:
      return self
    generator = self.generator.clone(window=window)
    try:
      shapes = variable_shapes(generator)
    except ValueError as error:  # InputError, or raised by the module when it is called
      raise InputError(f'{self.origin}: {brief(str(error))}') from None

    def resampled(path: tuple, leaf: jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
      if leaf.shape == shape.shape:
        return leaf
      if path[-1].key != 'bias_table':
        raise InputError(f'{self.origin}: {jax.tree_util.keystr(path)} is {list(leaf.shape)}, with '
                         f'window={window} {list(shape.shape)}; only a bias_table is interpolated')
      if any(key.key == 'overlap' for key in path):  # HAT's, whose rows have another order
        sides = ((side, overlap_margin(side, generator.overlap))
                 for side in (self.generator.window, window))
        return jnp.asarray(resample_overlap_table(leaf, *sides))
      return jnp.asarray(resample_bias_table(leaf, shape.shape[0]))

    return dataclasses.replace(
        self, generator=generator,
        variables=jax.tree_util.tree_map_with_path(resampled, self.variables, shapes),
        config=self.config | {'generator': {**self.config['generator'], 'window': window}},
        origin=f'{self.origin}, window {window}')

  def __call__(self, image: np.ndarray | jax.Array) -> np.ndarray:
    image = _as_image(image)
    return self._upscale(image) if image.ndim > 2 else self._upscale(image[..., None])[..., 0]

  def upscaler(self, **options: Any) -> Upscaler:
    """Returns an Upscaler with its options: tiles, memory, the sizes of the images to come."""
    return Upscaler(self.generator, self.variables, **options)

  @functools.cached_property
  def _upscale(self) -> Upscaler:
    return self.upscaler()


def _as_image(image: Any) -> np.ndarray:
  """Returns an argument of `Model` as an array of one of DTYPES, in the machine's byte order."""
  if isinstance(image, jax.core.Tracer):
    raise InputError('cannot be called inside jit or grad; model.generator.apply(model.variables, '
                     'lr) is the function of float32 [B, h, w, C] that can')
  if not isinstance(image, np.ndarray | jax.Array):
    raise InputError(f'expected an image as a NumPy or JAX array, got {type(image).__name__}')
  if image.ndim in (3, 4) and image.shape[-1] == 4:
    raise InputError(f'image of shape {list(image.shape)}: expected 1 or 3 channels; drop the '
                     'fourth (alpha), or use sr-jax upscale, which processes it')
  is_float = jnp.issubdtype(image.dtype, jnp.floating)  # NumPy's does not know bfloat16
  if (not image.size or image.ndim not in (2, 3, 4) or (image.ndim > 2 and image.shape[-1] not in
                                                        (1, 3))
      or not (is_float or image.dtype.name in DTYPES)):
    raise InputError(f'{image.dtype} {list(image.shape)}: expected an image of uint8, uint16 or '
                     'float in [0, 1], [h, w], [h, w, 1 or 3] or [B, h, w, 1 or 3]')
  image = np.asarray(image)
  return image.astype(np.float32 if is_float else image.dtype.newbyteorder('='), copy=False)


def load(source: os.PathLike | str, *, step: str | int = 'latest', raw: bool = False,
         wrapper: str = '', fields: dict[str, Any] | None = None,
         assumed: dict[str, Any] | None = None) -> Model:
  """Loads the generator of a run, of a weight file or of a published network.

    model = sr_jax.load('realesr-animevideov3-x2')
    sr = model(lr)  # NumPy uint8 [h, w, 3] to [2 * h, 2 * w, 3]

  Args:
    source: the folder of a run; a `.safetensors`, `.pth` or ncnn file; or a name in
      `pretrained.published.PUBLISHED`.
    step: for a run, the step of a checkpoint, 'latest' or 'best'.
    raw: for a run, loads the weights instead of their exponential moving average (EMA).
    wrapper: for a `.pth`, the key of the state dict in the file, such as 'params'.
    fields: for a file, fields of the network that it does not determine, such as
      {'residual_scale': 0.1} of an EDSR. They override what the file determines.
    assumed: for a file, values for those fields that would otherwise have to be in `fields`.

  Raises:
    InputError: the source does not exist, is unreadable, or is not a known network, or a tensor
      is missing, unexpected or has another shape.
  """
  if not str(source):
    raise InputError('the name of the network is empty (an unset variable?)')
  path = files.expand(source)
  try:
    published = str(source) in PUBLISHED and not path.is_file() and not (
        RunFolder(path).config.exists())
    is_folder, exists = path.is_dir(), path.exists()
  except OSError as error:
    raise InputError(f'{source}: {error.strerror}') from None
  if is_folder and not published:
    if fields or wrapper:
      raise InputError(f'{path}: cannot set {", ".join(fields or ["key"])} of a run, whose network '
                       'is known')
    return load_run(path, step, raw)
  if step != 'latest' or raw:
    raise InputError(f'{path}: not a run, so it has no steps (step={step}) and no EMA (raw={raw})')
  if published:
    model = load_file(published_file(str(source)), fields, wrapper, assumed)
    return dataclasses.replace(model, origin=f'{source} ({PUBLISHED[source].package})')
  if not exists:
    raise InputError(f'{source}: not a run folder, a weight file or a published network; '
                     f'published networks: {", ".join(PUBLISHED)}')
  return load_file(path, fields, wrapper, assumed)


def load_run(workdir: os.PathLike | str, step: str | int = 'latest', raw: bool = False) -> Model:
  """Loads the generator of the run in `workdir`; see `load`."""
  workdir = files.expand(workdir)
  trained = metadata.read_config(workdir)
  try:
    config = {key: trained[key] for key in ('generator', 'scale', 'dtype')}
    generator = factory.build_generator(config['generator'], config['scale'], config['dtype'],
                                        'generator.')
    shapes = variable_shapes(generator)
  except ValueError as error:  # InputError, or raised by a module when it is first called
    raise InputError(f'{workdir}/config.json: {brief(error)}') from None
  except (KeyError, AttributeError, TypeError):
    fields = brief(repr(trained.get('generator')), 200)
    raise InputError(f'{workdir}/config.json: generator={fields} is incomplete '
                     f'or unknown; known names: {", ".join(GENERATORS)}') from None
  best = trained.get('best_metric', '')
  checkpoints = Checkpoints(workdir, best, read_only=True,
                            lower_is_better=metadata.lower_is_better(best, trained))
  try:
    number = checkpoints.resolve_step(step)
    variables = checkpoints.restore_generator(shapes, number, raw)
  finally:
    checkpoints.close()
  return Model(generator, variables, config, (trained.get('imported') or {}).get('names', ''),
               f'{workdir}, step {number}{", raw" if raw else ""}', step=number)


def load_file(path: os.PathLike | str, fields: dict[str, Any] | None = None, wrapper: str = '',
              assumed: dict[str, Any] | None = None) -> Model:
  """Loads the generator in a weight file; see `load`."""
  file = generators.read_generator(path, fields, wrapper, assumed)
  config = {'generator': {'name': file.name} | {
      key: value for key, value in file.fields.items() if key != 'scale'},
            'scale': file.fields['scale'], 'dtype': 'float32'}
  try:
    generator = factory.build_generator(config['generator'], config['scale'], config['dtype'], '')
    variables = jax.tree.map(jnp.asarray, generators.to_variables(file, generator))
  except ValueError as error:  # InputError, or raised by a module when it is first called
    raise InputError(f'{path}: {brief(str(error).splitlines()[0])}') from None
  return Model(generator, variables, config, file.family, f'{path} ({file.origin})', file.assumed)


def interpolate(a: Model, b: Model, alpha: float) -> Model:
  """Returns (1 - alpha) * a + alpha * b, weight by weight (ESRGAN, Wang et al. 2018, section 3.4).

  With `a` trained on a pixel loss and `b` adversarially, alpha goes from smooth to sharp.

  Raises:
    InputError: alpha is outside [0, 1], or the networks differ; the message names the field.
  """
  if not 0 <= alpha <= 1:
    raise InputError(f'alpha={alpha}: expected 0 to 1')
  factory.refuse_unless_equal(a.generator, a.origin, b.generator, b.origin)

  def mix(x: jax.Array, y: jax.Array) -> np.ndarray:
    # In float64, so that alpha 0 and 1 reproduce the bits of a and b.
    mixed = (1 - alpha) * np.asarray(x, np.float64) + alpha * np.asarray(y, np.float64)
    return np.float32(mixed)

  return dataclasses.replace(
      a, variables=jax.tree.map(mix, a.variables, b.variables),
      origin=f'{1 - alpha:g} of {a.origin} and {alpha:g} of {b.origin}')

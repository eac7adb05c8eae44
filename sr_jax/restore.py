"""A generator with its weights, from a run or from a weight file; `sr_jax.load`."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sr_jax.errors import InputError, brief
from sr_jax.inference.upscaler import DTYPES, Upscaler
from sr_jax.models import factory, variable_shapes
from sr_jax.pretrained import generators
from sr_jax.pretrained.published import PUBLISHED, published_file
from sr_jax.runs import metadata
from sr_jax.runs.checkpoints import Checkpoints
from sr_jax.system import files


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """`sr = model(lr)`: NumPy [h, w], [h, w, 1] or [h, w, 3] in, uint8, uint16 or float32 in
  [0, 1], the same `scale` times larger out. Grey stays grey. Each new size of picture is
  compiled once; `model.upscaler(sizes=...)` has many sizes share what is compiled.

  Attributes:
    generator: the flax module, float [B, h, w, C] in [0, 1] in and out.
    variables: {'params', 'batch_stats'}.
    config: the part of a config that describes it: `generator`, `scale`, `dtype`.
    names: the family of names that its weights had in the file they came from, or ''.
    origin: where it is from, in words.
    usual: fields that the file does not tell and that have their usual value.
    step: of a run, else 0.

  Raises:
    InputError: when called with anything else.
  """

  generator: Any
  variables: dict = dataclasses.field(repr=False)
  config: dict
  names: str
  origin: str
  usual: Sequence[str] = ()
  step: int = 0

  @property
  def scale(self) -> int:
    return self.generator.scale

  @property
  def name(self) -> str:
    """Of `models.GENERATORS`."""
    return self.config['generator']['name']

  @property
  def fields(self) -> dict[str, Any]:
    """The generator's fields that the config sets, its scale among them."""
    fields = {key: value for key, value in self.config['generator'].items() if value is not None}
    return {key: value for key, value in fields.items()
            if key not in ('name', 'init')} | {'scale': self.scale}

  def __call__(self, image: np.ndarray) -> np.ndarray:
    if (not isinstance(image, np.ndarray) or image.dtype.name not in DTYPES or not image.size
        or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,))):
      kind = (f'{image.dtype} {list(image.shape)}' if isinstance(image, np.ndarray)
              else type(image).__name__)
      raise InputError(f'a picture is expected as NumPy {" or ".join(DTYPES)} [h, w], [h, w, 1] '
                       f'or [h, w, 3], got {kind}')
    image = image.astype(image.dtype.newbyteorder('='), copy=False)
    sr = self._upscale(image if image.ndim == 3 else image[..., None])
    return sr if image.ndim == 3 else sr[..., 0]

  def upscaler(self, **options) -> Upscaler:
    """With options of `upscaler.Upscaler`: tiles, memory, the sizes of the pictures to come."""
    return Upscaler(self.generator, self.variables, **options)

  @functools.cached_property
  def _upscale(self):
    return self.upscaler()


def load(source, *, step: str | int = 'latest', raw: bool = False, wrapper: str = '',
         fields: dict[str, Any] | None = None, usual: dict[str, Any] | None = None) -> Model:
  """The generator of a run, of a weight file or of a published network.

    model = sr_jax.load('realesr-animevideov3-x2')
    sr = model(lr)  # NumPy uint8 [h, w, 3] to [2 * h, 2 * w, 3]

  Args:
    source: the folder of a run; a `.safetensors`, `.pth` or ncnn file; or a name in
      `weights.published.PUBLISHED`.
    step: of a run: a checkpoint's step, 'latest' or 'best'.
    raw: of a run: the weights themselves rather than their average (EMA).
    wrapper: of a `.pth`: the key that the weights lie under, such as 'params'.
    fields: of a file: fields of the network that the file can't tell, such as
      {'residual_scale': 0.1} of an EDSR.
    usual: as `fields`, for those alone that nobody can know of the file.

  Raises:
    InputError: nothing there, not readable, of no known network, a tensor that is missing,
      one too many or of another shape.
  """
  if not str(source):
    raise InputError('the empty name of a network (a variable that is not set?)')
  path = files.expand(source)
  try:
    published = str(source) in PUBLISHED and not path.is_file() and not (
        path / 'config.json').exists()
    is_folder, exists = path.is_dir(), path.exists()
  except OSError as error:
    raise InputError(f'{source}: {error.strerror}') from None
  if is_folder and not published:
    if fields or wrapper:
      raise InputError(f'{path}: is a run, whose network is known: no '
                       f'{", ".join(fields or ["key"])} can be set')
    return load_run(path, step, raw)
  if step != 'latest' or raw:
    raise InputError(f'{path}: is no run: it has no steps and no average')
  if published:
    model = load_file(published_file(str(source)), fields, wrapper, usual)
    return dataclasses.replace(model, origin=f'{source} ({PUBLISHED[source].package})')
  if not exists:
    raise InputError(f'{source}: no run, no weight file and no published network, of which there '
                     f'are {", ".join(PUBLISHED)}')
  return load_file(path, fields, wrapper, usual)


def load_run(workdir, step: str | int = 'latest', raw: bool = False) -> Model:
  """The generator of the run in `workdir`; see `load`."""
  workdir = files.expand(workdir)
  trained = metadata.read_config(workdir)
  try:
    config = {key: trained[key] for key in ('generator', 'scale', 'dtype')}
    generator = factory.build_generator(ConfigDict(config))
    shapes = variable_shapes(generator)
  except ValueError as error:  # InputError, or a module's own when it is first called
    raise InputError(f'{workdir}/config.json: {brief(error)}') from None
  except (KeyError, AttributeError, TypeError):
    raise InputError(f'{workdir}/config.json: states no generator that is known here') from None
  checkpoints = Checkpoints(workdir, trained.get('best_metric', ''), read_only=True)
  try:
    number = checkpoints.named(step)
    variables = checkpoints.restore_generator(shapes, number, raw)
  finally:
    checkpoints.close()
  return Model(generator, variables, config, (trained.get('imported') or {}).get('names', ''),
               f'{workdir}, step {number}{", raw" if raw else ""}', step=number)


def load_file(path, fields: dict[str, Any] | None = None, wrapper: str = '',
              usual: dict[str, Any] | None = None) -> Model:
  """The generator in a weight file; see `load`."""
  found = generators.read_generator(path, fields, wrapper, usual)
  rest = {key: value for key, value in found.fields.items() if key != 'scale'}
  config = {'generator': {'name': found.name, **rest},
            'scale': found.fields['scale'], 'dtype': 'float32'}
  try:
    generator = factory.build_generator(ConfigDict(config), '')
    variables = jax.tree.map(jnp.asarray, generators.to_variables(found, generator))
  except ValueError as error:  # InputError, or a module's own when it is first called
    raise InputError(f'{path}: {brief(str(error).splitlines()[0])}') from None
  return Model(generator, variables, config, found.family, f'{path} ({found.origin})', found.usual)


def interpolate(a: Model, b: Model, alpha: float) -> Model:
  """(1 - alpha) * a + alpha * b, weight by weight (ESRGAN, Wang et al. 2018, section 3.4).

  With a trained on pixels and b against a discriminator, alpha goes from smooth to sharp.

  Raises:
    InputError: alpha beyond [0, 1], or networks that differ; the message names the field.
  """
  if not 0 <= alpha <= 1:
    raise InputError(f'alpha={alpha}: expected 0 to 1')
  factory.refuse_unless_equal(a.generator, a.origin, b.generator, b.origin)

  def mix(x, y):
    # In float64, so that alpha 0 and 1 give the bits of one or the other.
    mixed = (1 - alpha) * np.asarray(x, np.float64) + alpha * np.asarray(y, np.float64)
    return np.float32(mixed)

  return dataclasses.replace(
      a, variables=jax.tree.map(mix, a.variables, b.variables),
      origin=f'{1 - alpha:g} of {a.origin} and {alpha:g} of {b.origin}')

"""Metrics of the user's own: a function of two images that returns a number."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sr_jax import images
from sr_jax.errors import InputError, brief
from sr_jax.system import user_code, user_failures

# Names that have another meaning in tables and legends.
RESERVED = ('psnr_y', 'ssim_y', 'psnr_rgb', 'ssim_rgb', 'psnr_lr', 'lpips_alex', 'lpips_vgg',
            'niqe', 'samples', 'lr', 'corrected')
EXPECTED = 'a function of (sr, hr), float32 [H, W, C] in [0, 1], that returns a number'


class OwnMetric(NamedTuple):
  """A metric of the user's own.

  Attributes:
    function: (sr, hr) -> number, of float32 [H, W, C] in [0, 1], whole images. It may be called
      from several threads at once.
    spec: 'module:name' of the function.
    better: 'higher', 'lower', or '' where it is not known.
  """

  function: Callable[[np.ndarray, np.ndarray], float]
  spec: str
  better: str = ''

  @property
  def meaning(self) -> str:
    """How the metric is computed, for the legend of tables."""
    return (f'{self.spec}(sr, hr) on samples in [0, 1], entire image'
            + (f', {self.better} is better' if self.better else ''))


def find_metric(spec: str, where: str, better: str = '') -> OwnMetric:
  """Returns the metric that 'module:name' names.

  Args:
    where: what contains the spec, for messages, such as 'config.eval.extra.edges.fn'.

  Raises:
    InputError: it cannot be found or is not a function.
  """
  return OwnMetric(user_code.find_function(spec, where, EXPECTED), spec, better)


def find_metrics(given: Mapping[str, str | Callable[..., float]] | Sequence[str] | str
                 ) -> dict[str, OwnMetric]:
  """Returns the metrics that the command line or the calling program gives, by name.

  Args:
    given: {name: function or 'module:name'}, or one or a sequence of 'module:name', which are
      called as the function, or 'NAME=module:name'. Their modules are allowed.

  Raises:
    InputError: a function cannot be found, or two metrics have one name.
  """
  given = [given] if isinstance(given, str) else given
  pairs = [*given.items()] if isinstance(given, Mapping) else [_named(text) for text in given]
  found: dict[str, OwnMetric] = {}
  for name, function in pairs:
    if not str(name).isidentifier() or not (callable(function) or user_code.is_spec(function)):
      raise InputError(f'metric {brief(name, 80)}={brief(function, 80)}: expected '
                       'MODULE:FUNCTION or NAME=MODULE:FUNCTION')
    if name in (*found, *RESERVED):
      raise InputError(f'metric {name}={function}: there is another metric called {name}; give it '
                       'another name, NAME=MODULE:FUNCTION')
    if callable(function):
      spec = f'{getattr(function, "__module__", "")}:{getattr(function, "__qualname__", "")}'
      found[name] = OwnMetric(function, spec)
    else:
      user_code.allow([function.partition(':')[0]])
      found[name] = find_metric(function, f'metric {name}')
  return found


def _named(text: str) -> tuple[str, str]:
  """Splits 'NAME=module:name'; without NAME, the name is that of the function."""
  name, equals, spec = str(text).rpartition('=')
  return name if equals else spec.rpartition(':')[2], spec


def own_scores(metrics: Mapping[str, OwnMetric], sr: np.ndarray, hr: np.ndarray,
               image: str = '') -> dict[str, float]:
  """Returns {name: value} of the user's own metrics for one image.

  Args:
    metrics: by name.
    sr, hr: uint8 or uint16 [H, W, 1 or 3], both of one depth.
    image: its name, for messages.

  Raises:
    InputError: a function raises an exception or returns something that is not one number.
  """
  if sr.shape[-1] != hr.shape[-1]:
    sr, hr = images.as_rgb(sr), images.as_rgb(hr)
  sr, hr = (images.to_float(side, np.iinfo(side.dtype).max) for side in (sr, hr))
  for side in (sr, hr):
    side.flags.writeable = False  # a function that changes them would change the other metrics
  scores = {}
  for name, metric in metrics.items():
    where = f'metric {name} ({metric.spec})' + (f', image {image}' if image else '')
    with user_failures.one_line(where, EXPECTED):
      value = metric.function(sr, hr)
    scores[name] = _number(value, where)
  return scores


def _number(value: Any, where: str) -> float:
  """Returns a value as a float; it may be an array of one number, without dimensions."""
  try:
    array = np.asarray(value)
    is_number = array.ndim == 0 and array.dtype.kind in 'iuf'
  except Exception:  # whatever the conversion of an object of another library raises
    is_number = False
  if not is_number:
    shown = (f'{value.dtype} {list(value.shape)}' if hasattr(value, 'dtype')
             and hasattr(value, 'shape') else brief(repr(value), 60))
    raise InputError(f'{where}: returned {shown}; expected {EXPECTED}')
  return float(array)

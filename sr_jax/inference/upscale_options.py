"""The options of upscaling files, checked."""

import dataclasses
import difflib
import math
from typing import Any

import numpy as np

from sr_jax.errors import InputError, brief
from sr_jax.inference import correction, upscale_jobs
from sr_jax.inference.planner import DEFAULT_TILE
from sr_jax.inference.upscale_file import Extras, FileOptions
from sr_jax.media import clips, photos, video

# (type, minimum, maximum) of the options that are numbers.
RANGES = {'tile': (int, 8, 10**6), 'memory': (float, 0.001, 10**6), 'quality': (int, 1, 100),
          'outscale': (float, 0.01, 64), 'backproject': (int, 0, 100),
          'max_pixels': (int, 1, 1 << 40), 'crf': (int, 0, 51)}


@dataclasses.dataclass(frozen=True)
class Options:
  """How files are upscaled; each field is a flag of the command.

  Attributes:
    format: of image results, a key of `photos.FORMATS`, a suffix such as 'jpg', or 'same' for that
      of each image; None is PNG, or what the suffix of `output` says.
    quality: of JPEG and WebP, 1 to 100 (lossless WebP); None is 95.
    overwrite: whether results that exist are replaced instead of skipped.
    outscale: size of the result over that of the input, reached by bicubic resampling; None is
      the network's scale.
    ensemble: whether to return the mean over the 8 rotations and reflections of an image.
    backproject: how often the difference between the input and the downscaled result is added,
      0 to 100; 5 is enough to remove colour shifts.
    correct: '[smooth:]T[,T,T]' or a number T in [0, 1]: samples that differ by more than T from
      bilinear interpolation are replaced by it; None, none are.
    tile: side, in the input's pixels, of the tiles in which the last layers run, or None. Does not
      change the result.
    memory: GiB that a computation may use; None is most of the free memory.
    max_pixels: images and frames with more pixels are refused.
    crf: x264's CRF for videos, 0 to 51, lower is better; None is 18.

  Raises:
    InputError: a value is invalid.
  """

  format: str | None = None
  quality: int | None = None
  overwrite: bool = False
  outscale: float | None = None
  ensemble: bool = False
  backproject: int = 0
  correct: str | float | None = None
  tile: int | None = DEFAULT_TILE
  memory: float | None = None
  max_pixels: int = photos.MAX_PIXELS
  crf: int | None = None

  def __post_init__(self) -> None:
    for name, (kind, least, most) in RANGES.items():
      value = getattr(self, name)
      optional = name not in ('backproject', 'max_pixels')
      if not (optional and value is None) and not _is_number(value, kind, least, most):
        noun = 'an integer' if kind is int else 'a number'
        raise InputError(f'{name}={brief(repr(value), 80)}: expected {noun} from {least:,} to '
                         f'{most:,}' + ', or None' * optional)
    for name in ('overwrite', 'ensemble'):
      if not isinstance(getattr(self, name), bool):
        raise InputError(f'{name}={brief(repr(getattr(self, name)), 80)}: expected True or False')
    for name, parse in (('format', format_name), ('correct', parse_correction)):
      try:
        parsed = parse(getattr(self, name))
      except ValueError as error:
        raise InputError(f'{name}={error}') from None
      if name == 'format':
        object.__setattr__(self, 'format', parsed)

  def extras(self, scale: float) -> Extras:
    """Returns the processing in addition to a network of `scale`."""
    kind, thresholds = parse_correction(self.correct)
    outscale = 0 if self.outscale in (None, scale) else self.outscale
    return Extras(self.ensemble, self.backproject, thresholds, kind if thresholds else '', outscale)

  def of_file(self, format: str, extras: Extras) -> FileOptions:
    """Returns how an image file is upscaled to a result of `format`."""
    return FileOptions(format, extras, self.quality or FileOptions.quality, self.max_pixels)


def from_names(given: dict[str, Any]) -> Options:
  """Returns Options with the fields that are given.

  Raises:
    InputError: there is no such field, or a value is invalid.
  """
  known = [field.name for field in dataclasses.fields(Options)]
  for name in given:
    if name not in known:
      similar = difflib.get_close_matches(name, known, 1)
      raise InputError(f'{name}: no such option; ' + (
          f'did you mean {similar[0]}?' if similar else f'expected one of {", ".join(known)}'))
  return Options(**given)


def format_name(text: str | None) -> str | None:
  """Returns the format that a name or a suffix such as 'jpg' stands for, in either case.

  Raises:
    ValueError: it is none of images.
  """
  if text is None:
    return None
  suffix, expected = f'.{str(text).lower()}', f'expected one of {", ".join(photos.FORMATS)} or same'
  if suffix in clips.SUFFIXES:
    raise ValueError(f'{text!r}: is a format of videos, {expected}; videos become '
                     f'{" or ".join(video.OUTPUT_SUFFIXES)}: for a single one, name the file by '
                     '--output')
  name = upscale_jobs.FORMAT_BY_SUFFIX.get(suffix, suffix[1:])
  if name not in (*photos.FORMATS, 'same'):
    raise ValueError(f'{brief(repr(text), 80)}: {expected}')
  return name


def parse_correction(text: str | float | None) -> tuple[str, tuple[float, ...]]:
  """Parses 0.1, '0.1', '0.1,0.2,0.1' or 'smooth:0.1' to (kind, thresholds); None has none.

  Raises:
    ValueError: it has another form.
  """
  if text is None:
    return 'replace', ()
  kind, _, numbers = str(text).rpartition(':')
  try:
    thresholds = tuple(float(number) for number in numbers.split(','))
  except ValueError:
    thresholds = ()
  if (kind or 'replace') not in correction.KINDS or len(thresholds) not in (1, 3) or not all(
      0 <= threshold <= 1 for threshold in thresholds):
    raise ValueError(f'{brief(repr(text), 80)}: expected one threshold or three in [0, 1], such as '
                     '0.1 or smooth:0.1,0.2,0.1')
  return kind or 'replace', thresholds


def _is_number(value: Any, kind: type, least: float, most: float) -> bool:
  kinds = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
  return (isinstance(value, kinds) and not isinstance(value, bool) and not math.isnan(value)
          and least <= value <= most)


def without_effect(options: Options, plan: upscale_jobs.Plan, named: bool) -> list[str]:
  """Returns a line for each given option that no result uses.

  Args:
    named: whether every input is a file that was named.

  Raises:
    InputError: there is such an option, and it cannot have been meant for other contents of a
      folder or of a pattern, or for an input that cannot be used.
  """
  formats = {job.format for job in plan.jobs}
  only_videos, unused = formats == {upscale_jobs.VIDEO}, {}
  if options.quality is not None and formats.isdisjoint(('jpeg', 'webp')):
    unused[f'--quality {options.quality}'] = (
        'IN has only videos, whose quality is --crf' if only_videos else
        'no result is a JPEG or WebP; --format chooses the format')
  if options.format and only_videos:
    unused[f'--format {options.format}'] = 'it applies to images, and IN has only videos'
  if options.crf is not None and upscale_jobs.VIDEO not in formats:
    unused[f'--crf {options.crf}'] = 'it applies to videos, and IN has only images'
  for option, reason in unused.items():
    never_jpeg = option.startswith('--quality') and options.format not in ('same', 'jpeg', 'webp')
    if (named and not plan.errors) or never_jpeg:
      raise InputError(f'{option}: has no effect here: {reason}; leave the option out')
  return [f'{option}: has no effect here: {reason}' for option, reason in unused.items()]

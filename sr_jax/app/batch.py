"""Upscales the files of one upload, one after the other, and says how far it is."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import wait

from sr_jax.app.computation import Computation, approximate, start
from sr_jax.app.upscaling import Network, Result, image_size, upscale_image
from sr_jax.errors import InputError
from sr_jax.inference.upscale_file import Extras, FileOptions, result_size
from sr_jax.system.text import format_seconds

INTERVAL_SECONDS = 1.0  # between two lines of progress


def describe(paths: Sequence[pathlib.Path], network: Network, extras: Extras, max_pixels: int
             ) -> list[str | InputError]:
  """Returns a line for each file: its size, that of the result and about how long it takes."""
  lines = []
  for path in paths:
    try:
      size = image_size(path, max_pixels)
    except InputError as error:
      lines.append(error)
      continue
    height, width = result_size(size, extras.outscale or network.upscaler.scale)
    seconds = network.expected_seconds(size, extras.ensemble)
    lines.append(f'{path.name}: {size[1]}x{size[0]}, result {width}x{height}'
                 + f', about {approximate(seconds)}' * (seconds >= 1))
  return lines


def upscale_all(paths: Sequence[pathlib.Path], network: Network, options: FileOptions,
                folder: os.PathLike | str) -> Iterator[tuple[str, list[Result | InputError]]]:
  """Upscales files one after the other.

  When the generator is closed, the computation of the current image ends (`Computation.stop`).

  Args:
    paths: image files.
    network: the network.
    options: as for `upscale_file`.
    folder: the results are written to a new folder in it.

  Yields:
    (a line about the current image, '' when there is none; what became of each earlier one).
  """
  outcomes = []
  folder = pathlib.Path(tempfile.mkdtemp(dir=folder))
  for number, path in enumerate(paths, 1):
    name = path.name + f' ({number} of {len(paths)})' * (len(paths) > 1)
    try:
      size = image_size(path, options.max_pixels)
      computation = Computation(network.expected_seconds(size, options.extras.ensemble))
      future = start(lambda update, path=path: upscale_image(
          network, path, folder, options, update), computation)
      try:
        while wait([future], INTERVAL_SECONDS).not_done:
          keep_recent([*paths, *folder.rglob('*')])
          yield f'{name}: {describe_progress(computation)}', outcomes
      finally:
        computation.stop()
      outcomes = [*outcomes, future.result()]
    except InputError as error:
      outcomes = [*outcomes, error]
    yield '', outcomes


def describe_progress(computation: Computation) -> str:
  """Returns text such as '40%, 02:10 elapsed, about 3 min left'."""
  if not computation.started:
    return 'waiting for another image'
  left = computation.seconds_left()
  if computation.fraction == 1:
    return f'100%, {format_seconds(computation.elapsed_seconds())} elapsed, writing the result'
  return (f'{computation.fraction:.0%}, ' * (computation.fraction > 0)
          + f'{format_seconds(computation.elapsed_seconds())} elapsed'
          + f', about {approximate(left)} left' * (left >= 1))


def keep_recent(paths: Iterable[pathlib.Path]) -> None:
  """Sets the files' time of modification to now, so that they are not deleted as old ones."""
  for path in paths:
    with contextlib.suppress(OSError):  # it no longer exists
      os.utime(path)

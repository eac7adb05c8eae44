"""Patches for TensorStore (0.1.86) and Orbax: a memory leak, and messages that are printed twice.

TensorStore never frees a value that it passes to Python as JSON. Orbax requests such a value of
1 kB for each array that it saves, and twice per save all of TensorStore's counters, 0.2 MB, for a
line of its own log. A week of ESRGAN training with a checkpoint every ten minutes leaks gigabytes.
"""

import copy
import functools
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import tensorstore

NEVER_AWAITED = "coroutine 'async_serialize.*' was never awaited"


def patch_tensorstore() -> None:
  """Disables TensorStore's counters and caches the JSON of each folder's specification."""
  tensorstore.experimental_collect_matching_metrics = lambda *_, **__: []
  spec = tensorstore.KvStore.Spec
  if hasattr(spec.to_json, 'original'):
    return  # already patched
  original = spec.to_json

  @functools.lru_cache(maxsize=16)  # the folders of one checkpoint
  def cached_json(url: str) -> Any:
    return original(spec(url))

  def to_json(self: tensorstore.KvStore.Spec, *args: Any, **kwargs: Any) -> Any:
    try:
      url = self.url if not args and not kwargs else ''
      url_is_complete = url and self == spec(url)  # the specification has no further options
    except ValueError:
      url_is_complete = False
    return copy.deepcopy(cached_json(url)) if url_is_complete else original(self, *args, **kwargs)

  to_json.original = original
  spec.to_json = to_json


def reason(error: Exception) -> str:
  """Returns a short description of an error that Orbax or TensorStore raised."""
  number = re.search(r"os_error_code='(\d+)'", str(error))
  if number:
    return os.strerror(int(number[1]))
  lines = str(getattr(error, 'strerror', None) or error).splitlines() or [type(error).__name__]
  return lines[0][:200]


def silence_orbax() -> None:
  """Suppresses Orbax's log lines, warnings and tracebacks about failures that it raises as well.

  Once one array cannot be written, Orbax stops waiting for the others, whose own failures then
  appear as tracebacks. Called when a checkpoint is opened rather than on import, so that importing
  this module has no side effects.
  """
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_not_from_orbax)  # adding it twice has no effect
  warnings.filterwarnings('ignore', NEVER_AWAITED, RuntimeWarning)
  if getattr(sys.unraisablehook, 'func', None) is not _ignore_orbax_unraisable:
    sys.unraisablehook = functools.partial(_ignore_orbax_unraisable, sys.unraisablehook)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
  text = record.pathname + record.getMessage()
  if record.exc_info and record.exc_info[1]:
    text += ''.join(traceback.format_exception(record.exc_info[1]))
  return '/orbax/' not in text and '.orbax-checkpoint-tmp' not in text


def _ignore_orbax_unraisable(previous_hook: Callable[[Any], object], unraisable: Any) -> None:
  if not re.fullmatch(f'Event loop is closed|{NEVER_AWAITED}', str(unraisable.exc_value)):
    previous_hook(unraisable)

"""What TensorStore (0.1.86), below Orbax, never gives free, and how a run of weeks does without.

A value that it hands to Python as JSON stays in memory for good. Orbax asks for one for each array
that is saved, of 1 kB, and twice a save for all of TensorStore's counters, 0.2 MB, for a line of
its own log: in a week of an ESRGAN, saved each ten minutes, gigabytes.
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

import tensorstore


def patch_tensorstore() -> None:
  """From here on the counters are not asked for, and each specification of a folder once."""
  tensorstore.experimental_collect_matching_metrics = lambda *_, **__: []
  spec = tensorstore.KvStore.Spec
  if hasattr(spec.to_json, 'plain'):
    return  # has been done
  plain = spec.to_json

  @functools.lru_cache(maxsize=16)  # of the checkpoint at work
  def asked_once(url: str):
    return plain(spec(url))

  def to_json(self, *options, **named):
    try:
      url = self.url if not options and not named else ''
      says_all = url and self == spec(url)  # it has no options beside its place
    except ValueError:
      says_all = False
    return copy.deepcopy(asked_once(url)) if says_all else plain(self, *options, **named)

  to_json.plain = plain
  spec.to_json = to_json


UNAWAITED = "coroutine 'async_serialize.*' was never awaited"


def reason(error: Exception) -> str:
  """An error of Orbax, or of TensorStore below it, in a few words."""
  number = re.search(r"os_error_code='(\d+)'", str(error))
  if number:
    return os.strerror(int(number[1]))
  lines = str(getattr(error, 'strerror', None) or error).splitlines() or [type(error).__name__]
  return lines[0][:200]


def silence_orbax() -> None:
  """Not when this file is imported: only who opens a checkpoint has Orbax's lines left out."""
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_is_news)  # once, however often
  warnings.filterwarnings('ignore', UNAWAITED, RuntimeWarning)
  if getattr(sys.unraisablehook, 'func', None) is not _unraisable:
    sys.unraisablehook = functools.partial(_unraisable, sys.unraisablehook)


def _is_news(record: logging.LogRecord) -> bool:
  text = record.pathname + record.getMessage()
  if record.exc_info and record.exc_info[1]:
    text += ''.join(traceback.format_exception(record.exc_info[1]))
  return '/orbax/' not in text and '.orbax-checkpoint-tmp' not in text


def _unraisable(others: Callable, lost) -> None:
  if not re.fullmatch(f'Event loop is closed|{UNAWAITED}', str(lost.exc_value)):
    others(lost)

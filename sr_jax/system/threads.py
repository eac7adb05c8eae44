"""Number of CPU cores, and a parallel map over threads."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import tqdm

Item = TypeVar('Item')
Result = TypeVar('Result')


def cores() -> int:
  """Returns the number of CPU cores available to this process."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def on_all_cores(function: Callable[[Item], Result], items: Sequence[Item],
                 description: str = '') -> list[Result]:
  """Returns [function(item), ...], computed by one thread per core behind a progress bar.

  Threads suffice for image work: NumPy, zlib, the decoders and XLA release Python's global
  interpreter lock. The first error, or Ctrl-C, is raised once the calls in progress have ended;
  the remaining items are not started.
  """
  with ThreadPoolExecutor(cores()) as pool:
    results = pool.map(function, items)
    try:
      return list(tqdm.tqdm(results, description, len(items), unit=' images', leave=False,
                            disable=None))
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise

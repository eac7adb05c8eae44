"""Threads: how many cores there are, and work spread over them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import tqdm


def cores() -> int:
  """That this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def on_all_cores(function: Callable, items: Sequence, doing: str = '') -> list:
  """[function(item), ...] by as many threads as there are cores, behind a progress bar.

  For work on pictures: NumPy, zlib, the decoders and XLA all release the interpreter's lock.
  The first error, or Ctrl-C, is raised after what is in hand; the rest is not begun.
  """
  with ThreadPoolExecutor(cores()) as pool:
    results = pool.map(function, items)
    try:
      return list(tqdm.tqdm(results, doing, len(items), unit=' pictures', leave=False,
                            disable=None))
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise

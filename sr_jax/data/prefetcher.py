"""Takes the items of an iterator in a thread while the last ones are in use."""

import queue
import threading
from collections.abc import Iterator
from typing import Any


class Prefetcher:
  """Takes the items of an iterator ahead of time, in a thread.

  Args:
    items: the iterator, which `close` closes.
    max_items: how many items are kept ready.
  """

  def __init__(self, items: Iterator[Any], max_items: int) -> None:
    self._ready = queue.Queue(max_items)
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
    self._thread.start()

  def next(self) -> Any:
    """Returns the next item, or raises the error that making it raised."""
    item = self._ready.get()
    if isinstance(item, BaseException):
      self._ready.put(item)  # nothing comes after an error, so later calls raise it again
      raise item
    return item

  def close(self) -> None:
    """Stops the thread and closes the iterator."""
    self._closed.set()
    while self._thread.is_alive():
      try:
        self._ready.get(timeout=0.05)  # the thread may be waiting for a free place
      except queue.Empty:
        continue

  def _run(self, items: Iterator[Any]) -> None:
    try:
      while not self._closed.is_set():
        self._ready.put(next(items))
    except BaseException as error:  # raised by `next` in the thread that asks for the item
      self._ready.put(error)
    finally:
      items.close()

"""Compiled programs that a process of the tests keeps in memory, beside the compile cache."""

import collections
from typing import Any

import jax
import pytest
from jax._src import compilation_cache  # what is replaced has no public name

LARGEST = 400  # programs


def keep(patch: pytest.MonkeyPatch, folder: str) -> None:
  """Lets this process load each program of a compile cache once, which takes a tenth of a second.

  Many tests train the same experiment several times. A test that uses another cache than `folder`,
  such as one with damaged files, reads what is there.
  """
  known = collections.OrderedDict()
  read = compilation_cache.get_executable_and_time
  write = compilation_cache.put_executable_and_time

  def remember(key: str, program: Any, seconds: int) -> None:
    if program is not None and jax.config.jax_compilation_cache_dir == folder:
      known[key] = program, seconds
      if len(known) > LARGEST:
        known.popitem(last=False)

  def read_once(key: str, *arguments: Any) -> tuple[Any, Any]:
    if key in known and jax.config.jax_compilation_cache_dir == folder:
      known.move_to_end(key)
      return known[key]
    found = read(key, *arguments)
    remember(key, *found)
    return found

  def write_and_remember(key: str, name: str, program: Any, backend: Any, seconds: int) -> None:
    write(key, name, program, backend, seconds)
    remember(key, program, seconds)

  patch.setattr(compilation_cache, 'get_executable_and_time', read_once)
  patch.setattr(compilation_cache, 'put_executable_and_time', write_and_remember)

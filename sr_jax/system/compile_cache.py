"""Compilation: its cache in the user's folder, what a step takes to compile and what it needs."""

import contextlib
import functools
import os
import re
import warnings
from collections.abc import Callable

import jax

from sr_jax.system import files

MOST = 4 << 30  # bytes of the cache: some hundred steps of deep networks


def use_cache(processes: int | None = 1) -> None:
  """What XLA compiles from here on is kept in `cache_folder()`/xla, for other processes to read.

  JAX_COMPILATION_CACHE_DIR names another folder, which is left as it is; with
  JAX_ENABLE_COMPILATION_CACHE=0 there is none. Of more than MOST bytes those go that are not
  used longest; one that can not be written is done without.

  Args:
    processes: that train together; None is several. Those have a cache only where one is named,
      which all of them must see: JAX writes it in the first alone, and on GPUs XLA shares out the
      tuning of kernels among all, so that who compiles would wait (a day) for who reads.
  """
  if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
    return
  if processes != 1:
    return
  folder = files.cache_folder() / 'xla'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    shrink(folder, MOST)
  except OSError:
    return
  if not os.access(folder, os.W_OK):
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # Each of the many small programs before the first step costs a tenth of a second.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
  warnings.showwarning = functools.partial(_mend, folder, warnings.showwarning)


def _mend(folder, others: Callable, message, *where) -> None:
  """Deletes an entry that JAX warns of: what a full disk or a kill cut short it would never write
  again. The program is compiled, as if the entry had not been there.
  """
  found = re.match(r"Error (?:reading|writing) persistent compilation cache entry for '(\w+)'",
                   str(message))
  if not found or jax.config.jax_compilation_cache_dir != str(folder):
    others(message, *where)
    return
  for entry in folder.glob(f'{found[1]}-*'):
    entry.unlink(missing_ok=True)


def shrink(folder, most: int) -> None:
  """Deletes the files in a folder that were not read for longest, until `most` bytes are left."""
  # Not JAX's own limit: a process that is killed while it writes an entry leaves one without
  # the time of its use, after which no other is written.
  found = []
  for place, _, names in os.walk(folder):  # on a GPU XLA's tuning has a folder of its own in it
    for path in (os.path.join(place, name) for name in names):
      with contextlib.suppress(FileNotFoundError):  # another process does the same
        status = os.lstat(path)
        found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
  left = sum(size for _, size, _ in found)
  for _, size, path in sorted(found):
    if left <= most:
      break
    with contextlib.suppress(FileNotFoundError):
      os.unlink(path)
    left -= size



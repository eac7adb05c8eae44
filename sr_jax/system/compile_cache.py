"""XLA's persistent compilation cache in the user's cache folder."""

import contextlib
import functools
import os
import pathlib
import re
import warnings
from collections.abc import Callable
from typing import Any

import jax

from sr_jax.system import files

MAX_CACHE_BYTES = 4 << 30  # a few hundred training steps of deep networks


def use_cache(processes: int | None = 1) -> None:
  """Makes JAX keep compiled programs in `files.cache_folder()`/xla, for other processes to read.

  A folder that JAX_COMPILATION_CACHE_DIR names is used unchanged instead;
  JAX_ENABLE_COMPILATION_CACHE=0 disables the cache. Entries beyond `MAX_CACHE_BYTES` are deleted,
  least recently used first. A cache that cannot be written is not used.

  Args:
    processes: number of processes that train together; None: several, of unknown number. Several
      processes use a cache only if JAX_COMPILATION_CACHE_DIR names one, which all of them must
      see: JAX writes it in the first process only, and on GPUs XLA distributes the autotuning of
      kernels over all processes, so that a process that compiles would wait (up to a day) for one
      that reads the cache.
  """
  if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
    return
  if processes != 1:
    return
  folder = files.cache_folder() / 'xla'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    shrink(folder, MAX_CACHE_BYTES)
  except OSError:
    return
  if not os.access(folder, os.W_OK):
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # Each of the many small programs before the first step takes a tenth of a second to compile.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', 0)
  warnings.showwarning = functools.partial(_delete_damaged_entry, folder, warnings.showwarning)


def shrink(folder: pathlib.Path, max_bytes: int) -> None:
  """Deletes the least recently read files in a folder until `max_bytes` are left."""
  # JAX's own limit is not used: a process that is killed while it writes an entry leaves the entry
  # without its access time file, after which JAX writes no further entries.
  entries = []
  for place, _, names in os.walk(folder):  # on a GPU, XLA's autotuning has a subfolder
    for path in (os.path.join(place, name) for name in names):
      with contextlib.suppress(FileNotFoundError):  # another process shrinks the same cache
        status = os.lstat(path)
        entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
  total = sum(size for _, size, _ in entries)
  for _, size, path in sorted(entries):
    if total <= max_bytes:
      break
    with contextlib.suppress(FileNotFoundError):
      os.unlink(path)
    total -= size


def _delete_damaged_entry(folder: pathlib.Path, show_warning: Callable[..., None],
                          message: Warning | str, *details: Any) -> None:
  """Handles a warning: deletes the cache entry that JAX could not read or write.

  JAX never rewrites an entry that a full disk or a kill truncated. The warning itself is not
  shown, as JAX compiles the program instead.
  """
  match = re.match(r"Error (?:reading|writing) persistent compilation cache entry for '(\w+)'",
                   str(message))
  if not match or jax.config.jax_compilation_cache_dir != str(folder):
    show_warning(message, *details)
    return
  for entry in folder.glob(f'{match[1]}-*'):
    entry.unlink(missing_ok=True)

"""How much memory is free, and whether there was too little."""

import contextlib
import ctypes
import os
import pathlib

import jax


def free_memory(device: jax.Device) -> int:
  """Bytes that JAX may still take: of an accelerator its own, else the host's."""
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats['bytes_in_use']
  return host_memory()


def host_memory() -> int:
  """Bytes of the host that this process may still take; without /proc, which tells, all there are.
  """
  free = [os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')]
  try:
    for line in pathlib.Path('/proc/meminfo').read_text().splitlines():
      if line.startswith('MemAvailable'):  # free memory alone would not count the page cache
        free = [int(line.split()[1]) * 1024]
    group = pathlib.Path('/sys/fs/cgroup')  # of a container
    limit, used = (int((group / name).read_text()) for name in ('memory.max', 'memory.current'))
    given_back = [int(line.split()[1]) for line in (group / 'memory.stat').read_text().splitlines()
                  if line.startswith('inactive_file ')]  # files that were read
    free.append(limit - used + sum(given_back))
  except (OSError, ValueError):
    pass
  return min(free)


def exhausted(error: Exception) -> bool:
  """Whether it says that memory is."""
  words = ('RESOURCE_EXHAUSTED', 'OUT_OF_MEMORY', 'out of memory', 'ALLOC_FAILED')
  return isinstance(error, MemoryError) or (isinstance(error, jax.errors.JaxRuntimeError)
                                            and any(word in str(error) for word in words))


def release_free_memory() -> None:
  """Hands the system what the C library keeps of memory that is free; of glibc alone it is asked.

  Each checkpoint is written by new threads, whose arenas fill with holes: a few tenths of a
  megabyte a time, for as long as a run lasts.
  """
  with contextlib.suppress(AttributeError):
    ctypes.CDLL(None).malloc_trim(0)

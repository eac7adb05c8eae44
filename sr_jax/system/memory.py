"""Free memory of the host and of devices, and how to recognise that it was exhausted."""

import contextlib
import ctypes
import os
import pathlib

import jax


def free_memory(device: jax.Device) -> int:
  """Returns the bytes that JAX may still allocate: an accelerator's own, otherwise the host's."""
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats['bytes_in_use']
  return host_memory()


def host_memory() -> int:
  """Returns the bytes of host memory that this process may still use.

  The smaller of the host's available memory and what is left of the container's limit. Without
  /proc/meminfo (outside Linux), the host's total memory.
  """
  limits = [os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')]
  try:
    for line in pathlib.Path('/proc/meminfo').read_text().splitlines():
      if line.startswith('MemAvailable'):  # unlike MemFree it includes the page cache
        limits = [int(line.split()[1]) * 1024]
    cgroup = pathlib.Path('/sys/fs/cgroup')
    limit, used = (int((cgroup / name).read_text()) for name in ('memory.max', 'memory.current'))
    # The page cache of files counts as used, although the kernel reclaims it on demand.
    statistics = (cgroup / 'memory.stat').read_text().splitlines()
    reclaimable = [int(line.split()[1]) for line in statistics
                   if line.startswith('inactive_file ')]
    limits.append(limit - used + sum(reclaimable))
  except (OSError, ValueError):
    pass
  return min(limits)


def exhausted(error: Exception) -> bool:
  """Returns whether an error of Python or JAX says that memory is exhausted."""
  words = ('RESOURCE_EXHAUSTED', 'OUT_OF_MEMORY', 'out of memory', 'ALLOC_FAILED')
  return isinstance(error, MemoryError) or (isinstance(error, jax.errors.JaxRuntimeError)
                                            and any(word in str(error) for word in words))


def release_free_memory() -> None:
  """Returns freed memory to the operating system; does nothing without glibc.

  New threads write each checkpoint, and the arenas that glibc allocates for them fragment: without
  this call a run grows by a few tenths of a megabyte per checkpoint.
  """
  with contextlib.suppress(AttributeError):
    ctypes.CDLL(None).malloc_trim(0)

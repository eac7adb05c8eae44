"""How much memory is free."""

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

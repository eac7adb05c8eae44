"""How much memory there is."""

import os
import pathlib

import jax


def free_memory(device: jax.Device) -> int:
  """Bytes: of an accelerator what JAX may still take, of the host what this process may."""
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats['bytes_in_use']
  # Without /proc there is no telling what is used.
  free = [os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 2]
  try:
    for line in pathlib.Path('/proc/meminfo').read_text().splitlines():
      if line.startswith('MemAvailable'):
        free = [int(line.split()[1]) * 1024]
    limit, used = (int(pathlib.Path('/sys/fs/cgroup', name).read_text())  # of a container
                   for name in ('memory.max', 'memory.current'))
    free.append(limit - used)
  except (OSError, ValueError):
    pass
  return min(free)

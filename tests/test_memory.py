"""Free memory of the host and of an accelerator."""

import os
from types import SimpleNamespace

import jax

from sr_jax.system.memory import free_memory


def test_host_memory_is_between_16_mib_and_all_of_it() -> None:
  total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  assert 1 << 24 < free_memory(jax.devices('cpu')[0]) < total


def test_free_memory_of_an_accelerator_is_what_jax_may_still_allocate() -> None:
  device = SimpleNamespace(memory_stats=lambda: {'bytes_limit': 1000, 'bytes_in_use': 300})
  assert free_memory(device) == 700

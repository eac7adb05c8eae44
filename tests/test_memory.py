"""What is free."""

import os
from types import SimpleNamespace

import jax

from sr_jax.system.memory import free_memory


def test_the_hosts_is_some_of_what_there_is():
  total = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  assert 1 << 24 < free_memory(jax.devices('cpu')[0]) < total


def test_an_accelerators_is_what_jax_may_still_take():
  device = SimpleNamespace(memory_stats=lambda: {'bytes_limit': 1000, 'bytes_in_use': 300})
  assert free_memory(device) == 700

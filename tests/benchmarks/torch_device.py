"""PyTorch beside JAX in one process: the device, the threads, and denormal numbers.

Numbers below 1.2e-38 (denormal, or subnormal) take some processors many times as long as others;
on an AMD EPYC of family 26 a multiplication takes twice as long, a convolution no longer.

XLA treats them as zero on a CPU, inputs and results, in the thread that calls a program
(`tsl::port::ScopedFlushDenormal` in xla/pjrt/cpu/cpu_client.cc) and in the threads of its pool
(xla/tsl/platform/threadpool.cc); "we do not intend to allow them" (github.com/jax-ml/jax,
issue 4042). PyTorch keeps them until `torch.set_flush_denormal(True)`, which sets a register of the
calling thread alone. OpenMP's threads, which PyTorch computes with, copy this register when they
start, at the first parallel operation. Set later, it leaves all threads but one as they are.
`describe_denormals` therefore measures both sides.
"""

import contextlib
import os
import pathlib
import platform
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Device(NamedTuple):
  """PyTorch, which is imported only after the number of threads is set, and its device."""

  torch: types.ModuleType
  name: str  # 'cpu' or 'cuda'


def open_device(threads: int) -> Device:
  """Imports PyTorch and sets it, and JAX's pool of threads if it does not exist yet.

  Args:
    threads: the number of CPU threads of each.

  Raises:
    ImportError: PyTorch is missing.
    SystemExit: JAX has a GPU and PyTorch has none.
  """
  if hasattr(os, 'sched_setaffinity'):  # sets the size of XLA's thread pool, before it is created
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
  jnp.finfo(jnp.float32)  # computed once and kept; NumPy warns if it finds denormals flushed
  import torch
  torch.set_flush_denormal(True)  # before PyTorch starts threads, which inherit it
  torch.set_num_threads(threads)
  torch.backends.cudnn.benchmark = True
  torch.backends.cuda.matmul.allow_tf32 = True  # the default of PyTorch's convolutions and of XLA
  device = Device(torch, 'cpu' if jax.default_backend() == 'cpu' else 'cuda')
  if device.name == 'cuda' and not torch.cuda.is_available():
    raise SystemExit('JAX has a GPU, but this PyTorch has none')
  return device


def kept_denormals(torch: types.ModuleType) -> dict[str, float]:
  """Returns the share of the denormal numbers that a multiplication by 1 keeps, on each side.

  The array is so large that all threads of both sides take a part of it.
  """
  # The bits of 5.9e-39: this thread may flush whatever it computes, also conversions of type.
  tiny = np.full(1 << 22, 1 << 22, np.uint32).view(np.float32)
  results = {'sr_jax': np.asarray(jax.jit(jnp.multiply)(tiny, jnp.float32(1))),
             'PyTorch': (torch.from_numpy(tiny) * torch.ones(())).numpy()}
  return {side: float((result.view(np.uint32) != 0).mean()) for side, result in results.items()}


def describe_denormals(torch: types.ModuleType) -> str:
  """Returns a phrase on the sides that flush denormal numbers, as measured, for a heading."""
  kept = [side for side, share in kept_denormals(torch).items() if share]
  return f'denormal numbers {f"kept by {kept}" if kept else "flushed to zero"} on every thread'


def processor_name() -> str:
  """Returns the name of the CPU."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return line.split(': ')[1]
  return platform.processor() or platform.machine()

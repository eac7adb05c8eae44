"""Compiles functions for a GPU that is not present, with JAX's CUDA plugin.

The plugin has a compiler that needs no GPU and no driver (jax.experimental.topologies). Nothing is
run. Without a GPU the compiler cannot time cuDNN's algorithms, so the algorithms, their workspace
and a few fusions may differ from those that the GPU itself would choose.
"""

import contextlib
import ctypes
import importlib.util
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from sr_jax.errors import InputError, brief
from sr_jax.profiling.target_file import Target, compiler_config
from sr_jax.step.compilation import memory_needs

PLUGIN = 'jax_plugins.xla_cuda13'
INSTALL = 'pip install "jax[cuda13]"'
# The libraries that the compiler loads; those of the plugin's packages, or of the system.
LIBRARIES = ('libcudart.so.13', 'libcublas.so.13', 'libcublasLt.so.13', 'libcusparse.so.12',
             'libcusolver.so.12', 'libcufft.so.12', 'libcupti.so.13', 'libcudnn.so.9')
# No kernel is timed, since there is nothing to time it on. Without timing, some of Triton's matrix
# products (those of attention) fail to compile, so cuBLAS computes them.
OPTIONS = {'xla_gpu_autotune_level': 0, 'xla_gpu_enable_triton_gemm': False}


class Program(NamedTuple):
  """A function that has been compiled for a GPU.

  Attributes:
    text: the program, as `compiled.as_text()` returns it.
    argument_bytes: size of the arguments that it uses.
    working_bytes: memory that running it needs besides.
    stored_bytes: size of the program in JAX's compile cache, about.
  """

  text: str
  argument_bytes: int
  working_bytes: int
  stored_bytes: int


def use_cpu_alone() -> None:
  """Keeps JAX from initialising a GPU that the machine may have, and from its compile cache.

  The cache cannot read programs for a GPU that is not present. For the start of a process: later
  calls have no effect.
  """
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_enable_compilation_cache', False)


def check_plugin() -> None:
  """Loads the CUDA plugin.

  Raises:
    InputError: it is not installed, or a library that it needs cannot be loaded.
  """
  if not (importlib.util.find_spec('jax_plugins') and importlib.util.find_spec(PLUGIN)):
    raise InputError(f'--target compiles with the CUDA plugin of JAX, which is not installed; '
                     f'install it with {INSTALL} (3.9 GB; no GPU is needed)')
  jax.devices()  # JAX loads its plugins when it is first asked for a device
  for library in LIBRARIES:
    try:
      ctypes.CDLL(library)
    except OSError as error:
      raise InputError(f'--target: cannot load the CUDA library {library} ({brief(error, 200)}); '
                       f'install it with {INSTALL}') from None


def device(target: Target) -> jax.Device:
  """Returns a GPU that arrays cannot be put on, only programs compiled for.

  Raises:
    InputError: the plugin refuses it.
  """
  from jax.experimental import topologies
  try:
    return topologies.get_topology_desc(
        topology_name='', platform='cuda', target_config=compiler_config(target),
        topology='1x1x1').devices[0]
  except Exception as error:  # of JAX, XLA or the plugin, of several classes
    raise InputError(f'--target: the CUDA plugin cannot compile for {target.name} '
                     f'({brief(error, 300)}); install it with {INSTALL}, and set '
                     'JAX_PLATFORMS=cpu') from None


@contextlib.contextmanager
def traced_for(gpu: jax.Device) -> Iterator[None]:
  """Makes code that asks JAX what it runs on trace what it would trace on `gpu`.

  This is the device loop (experiment/phases.py), the convolutions (models/convolution.py), parts
  of a batch (step/train_step.py), and the device that `system/sharding.py` places arguments on.
  JAX itself still computes on the CPU.
  """
  # There is no public way to trace for another default backend than the one in use.
  backend, devices = jax.default_backend, jax.local_devices
  jax.default_backend, jax.local_devices = lambda: 'gpu', lambda *_, **__: [gpu]
  try:
    yield
  finally:
    jax.default_backend, jax.local_devices = backend, devices


def compile_for_gpu(run: jax.stages.Wrapped, *shapes: Any) -> Program:
  """Compiles a jitted function whose arguments are placed on a device of `device`.

  Args:
    run: the function.
    shapes: its arguments, trees of jax.ShapeDtypeStruct.

  Raises:
    InputError: the compiler fails.
  """
  lowered = run.trace(*shapes).lower(lowering_platforms=('cuda',))
  try:
    compiled = lowered.compile(compiler_options=OPTIONS)
  except jax.errors.JaxRuntimeError as error:
    raise InputError(f'--target: the CUDA plugin cannot compile the program '
                     f'({brief(error, 300)})') from None
  stored = len(zlib.compress(compiled.runtime_executable().serialize(), 1))
  return Program(compiled.as_text(), *memory_needs(compiled), stored)

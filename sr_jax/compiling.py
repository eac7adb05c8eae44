"""Compilation: its cache in the user's folder, what a step takes to compile and what it needs."""

import contextlib
import functools
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from jax import monitoring

from sr_jax import files, memory
from sr_jax.errors import InputError

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


class Compiled(NamedTuple):
  """A program, what it took and what it needs.

  Attributes:
    program: to be called with arguments of those shapes alone.
    seconds: to trace, lower and compile; xla_seconds: of them XLA's, or for reading the cache.
    read: whether it was in the cache.
    held: bytes of its arguments: the state, frozen arrays, pictures.
    working: bytes beside them while it runs: activations, gradients, the new state where it is
      not in the old one's place.
  """

  program: jax.stages.Compiled
  seconds: float
  xla_seconds: float
  read: bool
  held: int
  working: int


def compile_step(run: Callable, *arguments) -> Compiled:
  """Compiles a jitted function for arguments; the call with them compiles nothing more.

  Raises:
    JaxRuntimeError: of XLA, such as no memory for it.
  """
  read, begin = [], time.perf_counter()

  def listen(event, **_):
    if event == '/jax/compilation_cache/cache_hits':
      read.append(event)

  lowered = run.lower(*arguments)
  lowering = time.perf_counter() - begin
  monitoring.register_event_listener(listen)
  try:
    compiled = lowered.compile()
  finally:
    monitoring.unregister_event_listener(listen)
  seconds = time.perf_counter() - begin
  needs = compiled.memory_analysis()
  held = needs.argument_size_in_bytes if needs else 0
  working = needs and (needs.temp_size_in_bytes + needs.output_size_in_bytes
                       - needs.alias_size_in_bytes)
  return Compiled(compiled, seconds, seconds - lowering, bool(read), held, working or 0)


def in_words(name: str, compiled: Compiled) -> str:
  """A line of what a step took to compile, what it will use and what the device has free."""
  free = memory.free_memory(jax.local_devices()[0])
  took = f'{"read from the cache" if compiled.read else "compiled"} in {compiled.xla_seconds:.1f} s'
  return (f'{name} step: {took}; needs '
          f'{_size(compiled.held + compiled.working)}: {_size(compiled.held)} of weights, moments '
          f'and pictures, {_size(compiled.working)} of activations and gradients; beside the '
          f'former {_size(free)} are free'
          + (', which is too little' if compiled.working > free else ''))


@contextlib.contextmanager
def room(config, mode: str, compiled: Compiled | None) -> Iterator[None]:
  """Inside, no memory for a step is an InputError that names what needs less.

  Args:
    mode: of the `feed.Feed`.
    compiled: of the step, once that is known.
  """
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    if not memory.exhausted(error):
      raise
    device = jax.local_devices()[0].device_kind
    needs = f', which needs {_size(compiled.held + compiled.working)}' if compiled else ''
    less = ['a smaller config.hr_patch or config.batch_size']
    if jax.default_backend() != 'cpu':  # where the parts are compiled as one
      less.append('config.accumulate, parts of a batch one after another')
    if config.generator.name not in ('srcnn', 'compact') and not config.generator.remat:
      less.append('config.generator.remat=True')
    if config.dtype == 'float32':
      less.append('config.dtype=bfloat16')
    if mode == 'bank':
      less.append('config.data.mode=mapped, pictures off the device')
    raise InputError(f'no memory on {device} for a training step{needs}; less takes '
                     + '; '.join(less)) from None


def _size(count: int) -> str:
  return f'{count / 2**20:,.0f} MiB'

"""What needs less memory, where a step had too little."""

import contextlib
from collections.abc import Iterator

import jax

from sr_jax.errors import InputError
from sr_jax.step.compilation import Compiled, mebibytes
from sr_jax.system import memory


@contextlib.contextmanager
def explain_oom(config, mode: str, compiled: Compiled | None) -> Iterator[None]:
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
    needs = f', which needs {mebibytes(compiled.argument_bytes + compiled.working_bytes)}' if compiled else ''
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

"""Explains which config keys make a training step need less memory, when it had too little."""

import contextlib
from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from sr_jax.errors import InputError
from sr_jax.step.compilation import Compiled
from sr_jax.system import memory
from sr_jax.system.text import format_bytes


@contextlib.contextmanager
def explain_oom(config: ConfigDict, data_mode: str, compiled: Compiled | None,
                phase: str = '') -> Iterator[None]:
  """Turns an out-of-memory error inside the context into an InputError that names the remedies.

  Args:
    data_mode: of the `feed.Feed`.
    compiled: the step, once it is compiled.
    phase: its name, for a run whose phases have different crops.
  """
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    if not memory.exhausted(error):
      raise
    device = jax.local_devices()[0].device_kind
    needs = ''
    if compiled:
      size = format_bytes(compiled.argument_bytes + compiled.working_bytes)
      needs = f', which needs {size}'
    remedies = ['a smaller config.hr_patch or config.batch_size']
    if config.phases.steps:
      remedies = [f'smaller or fewer crops in the phase {phase} (config.phases; the last phase has '
                  'config.hr_patch and config.batch_size)']
    if jax.default_backend() != 'cpu':  # where the parts of a batch are not compiled as one
      remedies.append('config.accumulate=2 or more, which computes a batch in parts')
    if config.generator.name in ('srresnet', 'msrresnet', 'edsr', 'rrdb') and (
        not config.generator.remat):
      remedies.append('config.generator.remat=True')
    if config.dtype == 'float32':
      remedies.append('config.dtype=bfloat16')
    if data_mode == 'bank':
      remedies.append('config.data.mode=mapped, which keeps images off the device')
    raise InputError(f'out of memory on {device} in a training step{needs}. To use less: '
                     + '; '.join(remedies)) from None

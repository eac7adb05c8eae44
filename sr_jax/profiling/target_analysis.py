"""What a config needs on a GPU that is not present, from its compiled programs."""

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from sr_jax.data import bank, pack_layout
from sr_jax.errors import InputError
from sr_jax.experiment import inputs, phases
from sr_jax.profiling import program
from sr_jax.profiling.target_file import Target
from sr_jax.profiling.target_fit import largest_batch
from sr_jax.profiling.target_programs import IMAGE, Programs, Step, vgg_shapes
from sr_jax.profiling.target_times import times

PARTS = 8, 4, 2  # numbers of parts that `accumulate` is tried with: the first that divides a batch


class Data(NamedTuple):
  """The training images.

  Attributes:
    bytes: their size when they are packed; None if it is unknown.
    images: their number; None if it is unknown.
    mode: config.data.mode.
  """

  bytes: int | None
  images: int | None
  mode: str

  def on_device(self, target: Target) -> int:
    """Returns the bytes that they take on a GPU; 0 if unknown, or if they stay on the disk."""
    if not self.bytes or self.mode in ('mapped', 'stream'):
      return 0
    fits = self.bytes <= bank.DEVICE_SHARE * target.budget
    return self.bytes if fits or self.mode == 'bank' else 0


def find_data(config: ConfigDict, data_gib: float | None) -> Data:
  """Finds the number and the size of the training images, from headers; downloads nothing.

  Args:
    config: the experiment.
    data_gib: their size in GiB, if it is known.
  """
  local = config.copy_and_resolve_references()
  local.data.download = False
  size = int(data_gib * 2**30) if data_gib else None
  try:
    found = inputs.training_set(local)
    cut = inputs.build_crop_spec(config)
    size = size or pack_layout.lay_out(found, cut.scale, cut.channels, cut.with_lr).bytes
  except InputError:  # they are not on this machine
    return Data(size, None, config.data.mode)
  return Data(size, len(found), config.data.mode)


def analyse(programs: Programs, target: Target, data: Data) -> dict[str, Any]:
  """Returns the content of target-NAME.json: bytes, counts of one step, and computed seconds.

  Args:
    programs: compiled for the compute capability of `target`.
    target: the GPU.
    data: of `find_data`. If the config has epochs and their number is unknown, so are the hours.
  """
  config, images = programs.config, data.on_device(target)
  experiment = phases.build(config, vgg_shapes)
  steps = {phase.name: programs.step(phase.name) for phase in experiment.phases}
  described = {phase.name: {'steps': phase.stop - phase.start, 'hr_patch': phase.crops.hr_patch,
                            'batch_size': phase.crops.batch_size}
               | _describe_step(steps[phase.name], target, images) for phase in experiment.phases}
  hours = sum(phase['steps'] * phase['estimate_seconds'] for phase in described.values()) / 3600
  counted = data.images or not (config.epochs or config.warmup_epochs)
  name = max(reversed(steps), key=lambda name: steps[name].bytes)
  largest = described[name]['batch_size']

  def need(batch_size: int) -> int:
    changes = {} if batch_size == largest else {'batch_size': batch_size}
    return programs.step(name, **changes).bytes + images

  return {
      'time': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'jax': jax.__version__, 'target': target._asdict(), 'compiled_as': programs.target.name,
      'memory_for_jax': target.budget, 'dtype': config.dtype, 'batch_size': config.batch_size,
      'hr_patch': config.hr_patch, 'accumulate': config.accumulate,
      'data': {'bytes': data.bytes, 'on_device': images, 'mode': data.mode},
      'fits': all(phase['fits'] for phase in described.values()), 'phases': described,
      'largest_phase': name,
      'largest_batch': largest_batch(need, target.budget, largest, config.accumulate),
      'with': {described: programs.step(name, **change).bytes + images
               for described, change in changes(config, experiment.generator).items()},
      'evaluation': _describe_evaluation(programs, target),
      'hours': hours if counted else None,
      'checkpoint_bytes': steps[name].checkpoint_bytes,
      'cache_bytes': sum(step.program.stored_bytes for step in steps.values())}


def changes(config: ConfigDict, generator: Any) -> dict[str, dict[str, Any]]:
  """Returns the keys that may save memory, as they are set, and as arguments of `Programs.step`."""
  found = {}
  sizes = (config.batch_size, *config.phases.batch_size)
  parts = next((parts for parts in PARTS if parts > config.accumulate
                and all(size % parts == 0 for size in sizes)), None)
  if parts:
    found[f'accumulate={parts}'] = {'accumulate': parts}
  if getattr(generator, 'remat', None) is False:
    found['generator.remat=True'] = {'remat': True}
  if config.dtype == 'float32':
    found['dtype=bfloat16'] = {'dtype': 'bfloat16'}
  return found


def _describe_step(step: Step, target: Target, images: int) -> dict[str, Any]:
  counts = program.read(step.program.text)
  computed, needed = times(counts, target), step.bytes + images
  return {'state_bytes': step.state_bytes, 'activation_bytes': step.program.working_bytes,
          'needed_bytes': needed, 'fits': needed <= target.budget, **counts._asdict(),
          'lower_bound_seconds': computed.lower, 'estimate_seconds': computed.estimate}


def _describe_evaluation(programs: Programs, target: Target) -> Mapping[str, Any]:
  compiled = programs.evaluation()
  computed = times(program.read(compiled.text), target)
  needed = compiled.argument_bytes + compiled.working_bytes
  return {'input': [*IMAGE], 'needed_bytes': needed, 'fits': needed <= target.budget,
          'lower_bound_seconds': computed.lower, 'estimate_seconds': computed.estimate}

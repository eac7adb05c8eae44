"""The programs of a config, compiled for a GPU that is not present: steps and an evaluation."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sr_jax import models
from sr_jax.data import bank, feed
from sr_jax.experiment import crops, inputs, phases
from sr_jax.models.vgg import VGGS, convolution_names
from sr_jax.pretrained.vgg import DEPTHS
from sr_jax.profiling import gpu_compiler
from sr_jax.profiling.target_file import Target
from sr_jax.step.state import begin_phase

PyTree = Any

IMAGE = 720, 1280  # height and width of the image that the evaluation upscales
BANK_BYTES, BANK_IMAGES = 2**24, 8  # the number of images does not change a program


class Step(NamedTuple):
  """The compiled step of a phase.

  Attributes:
    program: the loop on the device that runs it.
    checkpoint_bytes: size of the training state.
    state_bytes: the same with the arrays that are never trained, such as VGG's.
  """

  program: gpu_compiler.Program
  checkpoint_bytes: int
  state_bytes: int

  @property
  def bytes(self) -> int:
    """The memory that the step needs, without the images."""
    return self.state_bytes + self.program.working_bytes


class Programs:
  """Compiles the programs of a config for a GPU, each when it is first asked for.

  Attributes:
    config: the experiment, with epochs converted to steps.
    target: the GPU.
  """

  def __init__(self, config: ConfigDict, target: Target) -> None:
    self.config, self.target = config, target
    self._gpu = gpu_compiler.device(target)
    self._compiled: dict[tuple, Any] = {}

  def step(self, phase: str, **changes: Any) -> Step:
    """Compiles the step of a phase as training dispatches it, with the device loop of a GPU.

    Args:
      phase: its name.
      changes: values in place of the config's: batch_size, which is that of the phase; accumulate,
        dtype, or generator.remat as `remat`.
    """
    key = (phase, *sorted(changes.items()))
    if key not in self._compiled:
      described = ''.join(f', {name}={value}' for name, value in changes.items())
      with self._timed(f'{phase} step{described}'):
        size = changes.pop('batch_size', None)
        self._compiled[key] = self._compile_step(phase, _changed(self.config, changes), size)
    return self._compiled[key]

  def evaluation(self) -> gpu_compiler.Program:
    """Compiles the generator for one image of `IMAGE`, which is the input that it upscales."""
    if 'evaluation' not in self._compiled:
      with self._timed('evaluation'), gpu_compiler.traced_for(self._gpu):
        generator = phases.build(self.config, vgg_shapes).generator
        shape = (1, *IMAGE, inputs.batch_channels(self.config))
        run = jax.jit(generator.apply, in_shardings=jax.sharding.SingleDeviceSharding(self._gpu))
        self._compiled['evaluation'] = gpu_compiler.compile_for_gpu(
            run, models.variable_shapes(generator), jax.ShapeDtypeStruct(shape, jnp.float32))
    return self._compiled['evaluation']

  def _compile_step(self, name: str, config: ConfigDict, batch_size: int | None) -> Step:
    with gpu_compiler.traced_for(self._gpu):
      run, shapes = jitted_step(config, name, batch_size)
      program = gpu_compiler.compile_for_gpu(run, *shapes)
    state, _, frozen, *_ = shapes
    trained = tree_bytes(state)
    return Step(program, trained, trained + tree_bytes(frozen))

  @contextlib.contextmanager
  def _timed(self, name: str) -> Iterator[None]:
    """Prints what the block compiles, and the seconds that it takes."""
    start = time.perf_counter()
    print(f'Compiling for compute capability {self.target.capability}: {name} ... ', end='',
          flush=True)
    try:
      yield
    except BaseException:
      print(flush=True)
      raise
    print(f'{time.perf_counter() - start:.1f} s', flush=True)


def jitted_step(config: ConfigDict, phase: str = '', batch_size: int | None = None
                ) -> tuple[jax.stages.Wrapped, tuple]:
  """Jits the step of a phase for the GPU of `gpu_compiler.traced_for`.

  Args:
    config: the experiment, with epochs converted to steps.
    phase: its name; '' is the last phase.
    batch_size: in place of that of the phase.

  Returns:
    (`phases.RunSteps`, its arguments: trees of jax.ShapeDtypeStruct).
  """
  experiment = phases.build(config, vgg_shapes)
  chosen = next(found for found in reversed(experiment.phases) if phase in ('', found.name))
  state = jax.eval_shape(lambda: begin_phase(experiment.new_state(), chosen.g_tx))
  config = crops.with_crops(config, chosen.crops)
  config.batch_size = batch_size or config.batch_size
  batch_at = feed.bank_batches(inputs.build_feed_spec(config, experiment.device_loop))
  images = bank.Bank(jax.ShapeDtypeStruct((1, BANK_BYTES), jnp.uint8),
                     jax.ShapeDtypeStruct((BANK_IMAGES, 5), jnp.int32))
  number = jax.ShapeDtypeStruct((), jnp.int32)
  return phases.jit_step(experiment, chosen, batch_at), (state, images, experiment.frozen, number,
                                                         number)


def tree_bytes(tree: PyTree) -> int:
  """Returns the bytes of all arrays of a tree, which may be shapes."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _changed(config: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
  config = config.copy_and_resolve_references()
  for name, value in changes.items():
    (config.generator if name == 'remat' else config)[name] = value
  return config


def vgg_shapes(network: str, weights: str, identity: str,
               dtype: jnp.dtype = jnp.float32) -> PyTree:
  """Returns the shapes of VGG's variables, in the place of `load_vgg`: nothing is downloaded."""
  del weights, identity
  vgg = VGGS[network](convolution_names(DEPTHS[network])[-1:])
  shapes = jax.eval_shape(vgg.init, jax.random.key(0),
                          jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
  return jax.tree.map(lambda leaf: leaf.update(dtype=dtype), shapes)

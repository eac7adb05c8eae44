"""config -> networks, optimisers, losses and the phases of a run."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from sr_jax import losses, metrics
from sr_jax.errors import InputError
from sr_jax.experiment import crops, inputs
from sr_jax.experiment.check import check_given, check_phases
from sr_jax.experiment.crops import Crops
from sr_jax.experiment.loss import LoadVGG, build_loss, build_vgg
from sr_jax.experiment.optimizer import build_optimizer
from sr_jax.experiment.part_checks import check_parts
from sr_jax.models import variable_shapes
from sr_jax.models.factory import build_discriminator, build_generator
from sr_jax.pretrained.vgg import load_vgg
from sr_jax.step import device_loop, freezing
from sr_jax.step.freezing import Trainable
from sr_jax.step.nonfinite import SkipNonfinite
from sr_jax.step.state import Metrics, PyTree, TrainState, begin_phase, init_state
from sr_jax.step.train_step import GanStep, PixelStep
from sr_jax.system import sharding

# run(state, source, frozen, start, stop) -> (state, metrics of the last step), jitted.
RunSteps = Callable[[TrainState, Any, dict[str, PyTree], int, int], tuple[TrainState, Metrics]]


class Phase(NamedTuple):
  """The steps start .. stop - 1 of a run, which share a loss, optimisers and the size of crops.

  Attributes:
    name: 'pixel', 'perceptual', 'warm-up' or 'gan'; with `config.phases` 'pixel-1' and so on.
    start, stop: the first step, and the first step after the phase.
    step: a `PixelStep` or `GanStep` that skips non-finite updates.
    schedules: learning rate against the steps since `since`, for 'g' and 'd'.
    crops: the size and number of crops.
    since: the step at which its optimisers began: `start`, unless it continues the phase before.
  """

  name: str
  start: int
  stop: int
  step: SkipNonfinite
  schedules: dict[str, optax.Schedule]
  crops: Crops
  since: int

  @property
  def g_tx(self) -> optax.GradientTransformation:
    """The generator's optimiser."""
    return self.step.step.g_tx

  @property
  def terms(self) -> Callable[[TrainState, Any, dict[str, PyTree]], Metrics]:
    """The weighted loss terms on a batch, without an update."""
    return self.step.step.terms


class Experiment(NamedTuple):
  """What a config stands for.

  Attributes:
    generator, discriminator: the networks; the second may be None.
    phases: in order; the last one stops at `config.steps`.
    frozen: arrays that are never trained, {} or {'vgg': variables}.
    trainable: which arrays of the generator are trained; None is all of them.
    max_bad: number of skipped steps in a row after which a run stops (step/nonfinite.py).
    new_state: makes the state at step 0.
    device_loop: whether many steps run in one loop on the device, with the arrays of each network
      joined to vectors (step/flat.py).
  """

  generator: nn.Module
  discriminator: nn.Module | None
  phases: list[Phase]
  frozen: dict[str, PyTree]
  trainable: Trainable | None
  max_bad: int
  new_state: Callable[[], TrainState]
  device_loop: bool

  def phase_at(self, step: int) -> Phase:
    return next(phase for phase in self.phases if step < phase.stop)

  def ends_optimisers(self, step: int) -> bool:
    """Returns whether the optimisers end with this number of steps: the run or its warm-up does."""
    return step == self.phases[-1].stop or any(step == phase.since for phase in self.phases)


def build(config: ConfigDict, load: LoadVGG = load_vgg) -> Experiment:
  """Builds everything that a training step needs except the data.

  Args:
    config: the experiment.
    load: of `build_vgg`.

  Raises:
    InputError: a value, a field or a combination that makes no sense; VGG weights are missing.
  """
  config = check_given(config, 'build')
  check_phases(config)
  own = [name for name, metric in config.eval.extra.items() if metric.fn]
  measured = (*metrics.metric_names(config.eval.lpips, config.eval.niqe), *own)
  if config.best_metric not in measured:
    raise InputError(f'config.best_metric={config.best_metric!r}: with eval.lpips='
                     f'{config.eval.lpips!r} and eval.niqe={config.eval.niqe} expected one of '
                     f'{", ".join(measured)}')
  generator = build_generator(dict(config.generator.items()), config.scale, config.dtype)
  discriminator = build_discriminator(dict(config.discriminator.items()), config.dtype)
  _refuse_unaveraged_statistics(config, generator)
  vgg, frozen = build_vgg(config, load)
  check_parts(config, vgg, frozen, (generator, discriminator))
  trainable = select_trainable(config, generator)
  d_tx, d_schedule = build_optimizer(config.optimizer.d, config.steps - config.warmup_steps)
  phases = _build_phases(config, generator, discriminator, vgg, trainable, (d_tx, d_schedule))
  lr_patch, channels = config.hr_patch // config.scale, inputs.batch_channels(config)
  loop = {'yes': True, 'no': False}.get(config.device_loop, jax.default_backend() != 'cpu')

  def new_state() -> TrainState:
    return init_state(config.seed, generator, phases[0].g_tx, (1, lr_patch, lr_patch, channels),
                      discriminator, d_tx, (1, config.hr_patch, config.hr_patch, channels),
                      trainable, joined=loop)

  return Experiment(generator, discriminator, phases, frozen, trainable,
                    config.max_bad_steps, new_state, loop)


def _build_phases(config: ConfigDict, generator: nn.Module, discriminator: nn.Module | None,
                  vgg: nn.Module | None, trainable: Trainable | None,
                  d_optimizer: tuple[optax.GradientTransformation, optax.Schedule]
                  ) -> list[Phase]:
  loss, steps = build_loss(config), config.steps - config.warmup_steps
  shared = {'generator': generator, 'ema': config.ema, 'trainable': trainable,
            'accumulate': config.accumulate}
  skip = functools.partial(SkipNonfinite, max_bad=config.max_bad_steps)
  g_tx, g_schedule = build_optimizer(config.optimizer.g, steps)
  phases = []
  if config.warmup_steps:
    warmup_loss = losses.GeneratorLoss(pixel=loss.pixel)
    tx, schedule = build_optimizer(config.optimizer.warmup, config.warmup_steps)
    step = PixelStep(g_tx=tx, loss=warmup_loss, **shared)
    phases.append(Phase('warm-up', 0, config.warmup_steps, skip(step), {'g': schedule},
                        crops.of_warmup(config), 0))
  if discriminator is None:
    step = PixelStep(g_tx=g_tx, loss=loss, vgg=vgg, **shared)
    name = 'perceptual' if loss.perceptual_weight else 'pixel'
    phases += _main_phases(config, name, skip(step), {'g': g_schedule})
  elif steps:
    d_tx, d_schedule = d_optimizer
    step = GanStep(discriminator=discriminator, g_tx=g_tx, d_tx=d_tx, loss=loss, vgg=vgg, **shared)
    phases += _main_phases(config, 'gan', skip(step), {'g': g_schedule, 'd': d_schedule})
  return phases


def _main_phases(config: ConfigDict, name: str, step: SkipNonfinite,
                 schedules: dict[str, optax.Schedule]) -> list[Phase]:
  """Returns the main phase, or the parts that `config.phases` divides it into."""
  return [Phase(f'{name}{part.suffix}', part.start, part.stop, step, schedules, part,
                config.warmup_steps) for part in crops.of_main_phase(config)]


def _refuse_unaveraged_statistics(config: ConfigDict, generator: nn.Module) -> None:
  """Raises InputError if weights are averaged whose BatchNorm has other weights' statistics."""
  used = ['warmup'] * bool(config.warmup_steps) + ['g'] * (config.steps > config.warmup_steps)
  for section in used:
    if config.optimizer[section].name == 'schedule_free' and jax.tree.leaves(
        _variable_shapes(generator)['batch_stats']):
      raise InputError(f"config.optimizer.{section}.name='schedule_free': the generator has "
                       'BatchNorm, whose statistics would be those of other weights than the '
                       'averaged ones; use another optimiser or a generator without BatchNorm')


def _variable_shapes(generator: nn.Module) -> PyTree:
  try:
    return variable_shapes(generator)
  except ValueError as error:  # the module itself refuses a field
    raise InputError(f'config.generator: {error}') from None


def select_trainable(config: ConfigDict, generator: nn.Module) -> Trainable | None:
  """Returns which arrays `config.train_only` and `config.freeze` leave trainable; None for all.

  Raises:
    InputError: a pattern matches nothing, or the generator refuses a field.
  """
  if not config.train_only and not config.freeze:
    return None
  return freezing.select(_variable_shapes(generator), config.train_only, config.freeze)


def state_at(experiment: Experiment, step: int) -> TrainState:
  """Returns a new state with the names and shapes of the checkpoint of a step.

  The state of an optimiser has the layout of its phase. A checkpoint of the last step of a phase
  has that of this phase: the next one begins after it.
  """
  state, phase = experiment.new_state(), experiment.phase_at(max(step - 1, 0))
  return state if phase is experiment.phases[0] else begin_phase(state, phase.g_tx)


def enter_phase(experiment: Experiment, state: TrainState, step: int,
                batch_at: device_loop.BatchAt, mesh: jax.sharding.Mesh | None = None
                ) -> tuple[Phase, TrainState, RunSteps]:
  """Returns the phase of `step`, the state to continue from, and the jitted step.

  A phase that continues the one before, with other crops, keeps the state as it is.
  """
  phase = experiment.phase_at(step)
  if step == phase.since:
    state = sharding.replicate(begin_phase(sharding.local_copy(state), phase.g_tx), mesh)
  return phase, state, jit_step(experiment, phase, batch_at, mesh)


def jit_step(experiment: Experiment, phase: Phase, batch_at: device_loop.BatchAt,
             mesh: jax.sharding.Mesh | None = None) -> RunSteps:
  """Jits run(state, source, frozen, start, stop) -> (state, metrics of the last step).

  The state that is passed is donated. Without the device loop one call takes one step, `start`.

  Args:
    batch_at: of a `feed.Feed`.
    mesh: of `sharding.make_mesh`; the arrays that are passed are replicated on it.
  """
  bound = {'step': phase.step, 'batch_at': sharding.sharded(batch_at, mesh)}
  options = {'donate_argnames': 'state', **sharding.jit_shardings(mesh)}
  if experiment.device_loop:
    return jax.jit(functools.partial(device_loop.train_steps, max_bad=experiment.max_bad, **bound),
                   **options)
  return jax.jit(functools.partial(device_loop.one_step, **bound), **options)

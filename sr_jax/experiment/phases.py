"""config -> networks, optimisers, losses and the phases of a run.

The one place that turns a config's words into objects; below it nothing knows a config.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sr_jax import losses, metrics
from sr_jax.errors import InputError
from sr_jax.experiment import inputs, optimizer
from sr_jax.experiment.check import check, check_phases
from sr_jax.models import variable_shapes
from sr_jax.models.factory import build_discriminator, build_generator
from sr_jax.models.vgg import VGGS
from sr_jax.pretrained.vgg import load_vgg
from sr_jax.step import freezing, nonfinite, train_step
from sr_jax.step.freezing import Trainable
from sr_jax.step.state import TrainState, init_state
from sr_jax.system import sharding


class Phase(NamedTuple):
  """Steps start .. stop - 1 of a run, which share a loss and optimisers.

  `step` is `pixel_step` or `gan_step`, guarded, with everything bound but state, batch and
  frozen; `terms` is `pixel_terms` or `gan_terms`, of the same loss, likewise; `schedules` are
  learning rates against the phase's own steps.
  """

  name: str
  start: int
  stop: int
  step: Callable
  terms: Callable
  g_tx: optax.GradientTransformation
  schedules: dict[str, optax.Schedule]


class Experiment(NamedTuple):
  """What a config means: static objects, and `frozen` arrays that are never trained.

  `trainable` says which arrays of the generator are; None is all. `max_bad` is how many bad
  steps in a row the phases' steps take before they stand still (guard.py).
  """

  generator: Any
  discriminator: Any
  phases: list[Phase]
  frozen: dict
  trainable: Trainable | None
  max_bad: int
  new_state: Callable[[], TrainState]
  device_loop: bool

  def phase_at(self, step: int) -> Phase:
    return next(phase for phase in self.phases if step < phase.stop)


def parse_layers(text: str) -> dict[str, float]:
  """'relu2_2:0.5,relu5_4' to {'relu2_2': 0.5, 'relu5_4': 1.0}."""
  layers = {}
  for part in text.split(','):
    name, _, weight = part.strip().partition(':')
    try:
      layers[name] = float(weight or 1)
    except ValueError:
      raise InputError(f'config.loss.perceptual.layers={text!r}: {weight!r} is no number') from None
  return layers


def build_loss(config) -> losses.GeneratorLoss:
  """The generator's loss of the main phase."""
  loss = config.loss
  return losses.GeneratorLoss(
      pixel=loss.pixel.kind, pixel_weight=loss.pixel.weight,
      perceptual_weight=loss.perceptual.weight, layers=parse_layers(loss.perceptual.layers),
      scale=loss.perceptual.scale, distance=loss.perceptual.distance,
      adversarial=loss.adversarial.kind, adversarial_weight=loss.adversarial.weight,
      total_variation_weight=loss.total_variation.weight)


def build_vgg(config) -> tuple[Any, dict]:
  """(module or None, frozen arrays); real weights or an error, never random ones."""
  perceptual = config.loss.perceptual
  if not perceptual.weight:
    return None, {}
  vgg = VGGS[perceptual.network](tuple(parse_layers(perceptual.layers)),
                                 dtype=jnp.dtype(config.dtype))
  variables = load_vgg(perceptual.network, perceptual.weights, perceptual.identity)
  try:
    features = jax.eval_shape(vgg.apply, variables,
                              jnp.zeros((1, config.hr_patch, config.hr_patch, 3)))
  except ValueError as error:
    raise InputError(f'config.loss.perceptual.layers: {error}') from None
  for name, feature in features.items():
    if not feature.size:
      raise InputError(f'config.loss.perceptual.layers: nothing is left of a {config.hr_patch}-'
                       f'pixel patch at {name}; hr_patch must be larger')
  return vgg, {'vgg': variables}


def _trainable(config, generator) -> Trainable | None:
  if not config.train_only and not config.freeze:
    return None
  try:
    shapes = variable_shapes(generator)
  except ValueError as error:  # a field that the module itself refuses
    raise InputError(f'config.generator: {error}') from None
  return freezing.select(shapes, config.train_only, config.freeze)


def build(config) -> Experiment:
  """Everything that a training step needs but the data.

  Raises:
    InputError: a value, a field or a combination that makes no sense; no VGG weights.
  """
  check(config)
  check_phases(config)
  measured = metrics.metric_names(config.eval.lpips)
  if config.best_metric not in measured:
    raise InputError(f'config.best_metric={config.best_metric!r}: with eval.lpips='
                     f'{config.eval.lpips!r} expected one of {", ".join(measured)}')
  generator = build_generator(dict(config.generator.items()), config.scale, config.dtype)
  discriminator = build_discriminator(dict(config.discriminator.items()), config.dtype)
  vgg, frozen = build_vgg(config)
  loss = build_loss(config)
  main_steps = config.steps - config.warmup_steps
  trainable = _trainable(config, generator)
  g_tx, g_schedule = optimizer.build_optimizer(config.optimizer.g, main_steps, trainable)
  d_tx, d_schedule = optimizer.build_optimizer(config.optimizer.d, main_steps)
  # What a step and the terms that are watched have in common, so that they are of one loss.
  objective = {'generator': generator, 'loss': loss, 'vgg': vgg}
  update = {'ema': config.ema, 'trainable': trainable, 'accumulate': config.accumulate}
  warm = {'generator': generator, 'loss': losses.GeneratorLoss(pixel=config.loss.pixel.kind)}

  def guarded(step, **bound):
    return functools.partial(nonfinite.skip_nonfinite, step=functools.partial(step, **update, **bound),
                             max_bad=config.max_bad_steps, trainable=trainable)

  phases = []
  if config.warmup_steps:
    tx, schedule = optimizer.build_optimizer(config.optimizer.warmup, config.warmup_steps, trainable)
    step = guarded(train_step.pixel_step, tx=tx, **warm)
    terms = functools.partial(train_step.pixel_terms, **warm)
    phases.append(Phase('warm-up', 0, config.warmup_steps, step, terms, tx, {'g': schedule}))
  if discriminator is None:
    step = guarded(train_step.pixel_step, tx=g_tx, **objective)
    terms = functools.partial(train_step.pixel_terms, **objective)
    name = 'perceptual' if loss.perceptual_weight else 'pixel'
    phases.append(Phase(name, 0, config.steps, step, terms, g_tx, {'g': g_schedule}))
  elif main_steps:
    objective['discriminator'] = discriminator
    step = guarded(train_step.gan_step, g_tx=g_tx, d_tx=d_tx, **objective)
    terms = functools.partial(train_step.gan_terms, **objective)
    phases.append(Phase('gan', config.warmup_steps, config.steps, step, terms, g_tx,
                        {'g': g_schedule, 'd': d_schedule}))

  lr_patch, channels = config.hr_patch // config.scale, inputs.build_channels(config)
  def new_state():
    try:
      return init_state(config.seed, generator, phases[0].g_tx, (1, lr_patch, lr_patch, channels),
                        discriminator, d_tx, (1, config.hr_patch, config.hr_patch, channels))
    except ValueError as error:
      raise InputError(f'config.generator or config.discriminator: {error}') from None

  loop = {'yes': True, 'no': False}.get(config.device_loop, jax.default_backend() != 'cpu')
  return Experiment(generator, discriminator, phases, frozen, trainable,
                    config.max_bad_steps, new_state, loop)


def enter_phase(experiment: Experiment, state: TrainState, step: int, batch_at: Callable,
                mesh: jax.sharding.Mesh | None = None) -> tuple[Phase, TrainState, Callable]:
  """(the phase of `step`, the state that it goes on from, its `dispatcher`)."""
  phase = experiment.phase_at(step)
  if step == phase.start:
    state = sharding.replicate(train_step.begin_phase(sharding.local_copy(state), phase.g_tx), mesh)
  return phase, state, jit_step(experiment, phase, batch_at, mesh)


def jit_step(experiment: Experiment, phase: Phase, batch_at: Callable,
               mesh: jax.sharding.Mesh | None = None) -> Callable:
  """run(state, source, frozen, start, stop) -> (state, metrics of the last step), jitted.

  The state given is gone afterwards (donated). Without the device loop only one step is
  taken, start, and the caller goes on from there.

  Args:
    batch_at: a `feed.Feed`'s.
    mesh: of `parallel.make_mesh`; the arrays given are replicated on it.
  """
  bound = {'step': phase.step, 'batch_at': sharding.sharded(batch_at, mesh)}
  options = {'donate_argnames': 'state', **sharding.jit_shardings(mesh)}
  if experiment.device_loop:
    return jax.jit(functools.partial(train_step.train_steps, max_bad=experiment.max_bad, **bound),
                   **options)
  return jax.jit(functools.partial(train_step.one_step, **bound), **options)

"""What a run carries from step to step, and nothing else. All of it is in the checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from sr_jax.errors import InputError
from sr_jax.models import failures
from sr_jax.step import flat, trial
from sr_jax.step.flat import FlatTree
from sr_jax.step.freezing import Trainable

PyTree = Any
# {'lr': [B, h, w, C], 'hr': [B, h * s, w * s, C]} in [0, 1]. With a 'target' of the shape of 'hr',
# such as sharpened HR, the generator's result is compared with it; the discriminator gets 'hr'.
Batch = Mapping[str, jax.Array]
# float32 scalars by name: 'g/TERM', 'g/total', 'g/grad_norm' and, in an adversarial phase,
# 'd/total', 'd/real', 'd/fake', 'd/grad_norm'. Logs, replay and SkipNonfinite use these names.
Metrics = dict[str, jax.Array]


class NetState(NamedTuple):
  """One network: its weights, its running statistics and the state of its optimiser.

  `variables` returns what the network is applied with.
  """

  params: FlatTree
  batch_stats: FlatTree  # of BatchNorm, and vectors of spectral normalisation; may be empty
  opt_state: PyTree  # of `params.trained()`


class Average(NamedTuple):
  """The moving averages of the generator's weights and BatchNorm statistics."""

  params: FlatTree
  batch_stats: FlatTree


class Health(NamedTuple):
  """Counters that are kept on the device, int32; sr_jax/step/nonfinite.py updates them."""

  skipped: jax.Array = np.int32(0)  # updates skipped since the start of the run
  bad: jax.Array = np.int32(0)  # consecutive steps up to now that were skipped
  # Consecutive steps up to now in which D classified every real and generated image correctly.
  saturated: jax.Array = np.int32(0)


class TrainState(NamedTuple):
  """The state of a run. `d` is None if there is no discriminator."""

  step: jax.Array  # int32: steps taken, which is also the number of the next batch
  seed: jax.Array  # int32: with `step`, the source of all randomness
  g: NetState
  d: NetState | None
  ema: Average
  health: Health = Health()


# A training step: (state, batch, frozen arrays) -> (state, metrics).
Step = Callable[[TrainState, Batch, Mapping[str, PyTree]], tuple[TrainState, Metrics]]


def init_state(seed: int, generator: nn.Module, g_tx: optax.GradientTransformation,
               lr_shape: tuple[int, ...], discriminator: nn.Module | None = None,
               d_tx: optax.GradientTransformation | None = None,
               hr_shape: tuple[int, ...] | None = None, trainable: Trainable | None = None,
               joined: bool | None = None) -> TrainState:
  """Returns the state at step 0, a function of the seed alone.

  Args:
    lr_shape, hr_shape: [B, H, W, C] of the inputs of the generator and the discriminator.
    trainable: which arrays of the generator are trained; None is all of them.
    joined: whether the arrays of a network are stored as vectors, see `flat.flatten`; None: unless
      JAX runs on a CPU.

  Raises:
    InputError: the result of the generator does not have `hr_shape`, or a network of the user's own
      cannot be used (step/trial.py).
  """
  if hr_shape:
    trial.refuse_unusable(generator, 'config.generator', lr_shape, hr_shape)
    if discriminator is not None:
      trial.refuse_unusable(discriminator, 'config.discriminator', hr_shape)

  @jax.jit  # one program for both: most of the time goes into compiling the random numbers
  def initial() -> tuple[PyTree, PyTree]:
    g_key, d_key = jax.random.split(jax.random.key(seed))
    with failures.one_line(generator, 'config.generator: '):
      sr, g = generator.init_with_output(g_key, jnp.zeros(lr_shape))
    if hr_shape and getattr(sr, 'shape', None) != hr_shape:
      found = list(sr.shape) if hasattr(sr, 'shape') else type(sr).__name__
      raise InputError(f'config.generator: the result of class {type(generator).__name__} for an '
                       f'image of {list(lr_shape)} is {found}, expected {list(hr_shape)}')
    if discriminator is None:
      return g, None
    with failures.one_line(discriminator, 'config.discriminator: '):
      return g, discriminator.init(d_key, jnp.zeros(hr_shape))

  joined = jax.default_backend() != 'cpu' if joined is None else joined
  g, d = initial()
  g = _new_network(g, g_tx, trainable, joined)
  d = d and _new_network(d, d_tx, None, joined)
  # Copies, because the step donates the state and a buffer can't be donated twice.
  ema = jax.tree.map(jnp.copy, Average(g.params, g.batch_stats))
  return TrainState(jnp.int32(0), jnp.int32(seed), g, d, ema,
                    Health(jnp.int32(0), jnp.int32(0), jnp.int32(0)))


def _new_network(variables: Mapping[str, PyTree], tx: optax.GradientTransformation,
                 trainable: Trainable | None, joined: bool) -> NetState:
  params, batch_stats = (
      flat.flatten(variables.get(name, {}), getattr(trainable, name, None), joined)
      for name in ('params', 'batch_stats'))
  return NetState(params, batch_stats, tx.init(params.trained()))


def target(batch: Batch) -> jax.Array:
  """Returns the images that the generator's result is compared with, 'target' or else 'hr'."""
  return batch.get('target', batch['hr'])


def variables(net: NetState | Average) -> dict[str, PyTree]:
  """Returns {'params', 'batch_stats'}, nested dicts of arrays that the network is applied with."""
  return {'params': net.params.tree(), 'batch_stats': net.batch_stats.tree()}


def begin_phase(state: TrainState, g_tx: optax.GradientTransformation) -> TrainState:
  """Returns the state that a phase starts from: a new optimiser state for G, counters at zero.

  The gradients of another loss have another size: with the optimiser state of the old loss the
  first hundreds of steps would be too long. After an optimiser that averages its weights, G starts
  from the average. A second call changes nothing, and neither does a call at step 0, so a run that
  resumes at the boundary continues as an uninterrupted one.
  """
  health = state.health._replace(bad=jnp.int32(0), saturated=jnp.int32(0))
  params = state.g.params
  if averaged_weights(state.g) is not None:
    params = jax.tree.map(jnp.copy, state.ema.params)  # a buffer can't be donated twice
  g = state.g._replace(params=params, opt_state=g_tx.init(params.trained()))
  return state._replace(g=g, health=health)


def averaged_weights(net: NetState) -> FlatTree | None:
  """Returns the trained weights that an optimiser averages itself; None for other optimisers.

  `optax.contrib.schedule_free` takes gradients at `net.params` and keeps another sequence in its
  state; what is evaluated follows from the two (Defazio et al. 2024).
  """
  def is_found(node: Any) -> bool:
    return isinstance(node, optax.contrib.ScheduleFreeState)

  found = [node for node in jax.tree.leaves(net.opt_state, is_leaf=is_found) if is_found(node)]
  if not found:
    return None
  return optax.contrib.schedule_free_eval_params(found[0], net.params.trained())

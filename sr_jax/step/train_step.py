"""One training step, pure: `(state, batch, frozen) -> (state, metrics)`.

`PixelStep` and `GanStep` are frozen dataclasses: what is static (networks, optimisers, the loss)
is a field, what is an array is an argument. A step of your own is any callable of that form; wrap
it in `nonfinite.SkipNonfinite` and run it with `device_loop.one_step` or `train_steps`. With the
attribute `g_tx` and the method `terms` it can be a phase of a run (experiment/phases.py).

`frozen` holds arrays that are never trained: {} or {'vgg': variables}. The named scopes tell a
profile what an operation belongs to; they do not change what is computed.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from sr_jax import losses
from sr_jax.losses import GeneratorLoss
from sr_jax.step import freezing
from sr_jax.step.accumulation import Part, in_parts
from sr_jax.step.flat import FlatTree
from sr_jax.step.freezing import Trainable
from sr_jax.step.state import (
  Average,
  Batch,
  Metrics,
  NetState,
  PyTree,
  TrainState,
  averaged_weights,
  target,
  variables,
)

DROP_PATH = 0x64726F70  # no number that `augment.step_keys` derives a key from


@dataclasses.dataclass(frozen=True, eq=False)
class PixelStep:
  """Trains the generator alone; a discriminator in the state does not change.

  Attributes:
    generator: the network that is trained.
    g_tx: its optimiser.
    loss: the weighted terms; its adversarial term is ignored.
    ema: decay of the moving average of the weights.
    vgg: the feature extractor of the perceptual term, or None.
    trainable: which arrays of the generator are trained; None trains all of them.
    accumulate: number of parts that a batch is split into, see `accumulation.in_parts`.
  """

  generator: nn.Module
  g_tx: optax.GradientTransformation
  loss: GeneratorLoss
  ema: float
  vgg: nn.Module | None = None
  trainable: Trainable | None = None
  accumulate: int = 1

  def __call__(self, state: TrainState, batch: Batch,
               frozen: Mapping[str, PyTree]) -> tuple[TrainState, Metrics]:
    """Returns (state, metrics): `g/<term>`, weighted as they are summed, `g/total` and the norm
    of the gradient.
    """
    params = _tree(state.g.params, 'generator')

    def gradients(g_stats: FlatTree, batch: Batch, part: Part
                  ) -> tuple[FlatTree, tuple[FlatTree, Metrics]]:
      def objective(params: PyTree) -> tuple[jax.Array, tuple[Metrics, FlatTree]]:
        sr, stats = generate(self.generator, params, g_stats, batch['lr'], self.trainable,
                             step_rngs(self.generator, state, part))
        terms = self.loss.reconstruction(sr, target(batch), self.vgg, frozen)
        return sum(terms.values()), (terms, stats)

      (total, (terms, stats)), grads = jax.value_and_grad(objective, has_aux=True)(params)
      metrics = {f'g/{name}': term for name, term in terms.items()} | {'g/total': total}
      return stats, (state.g.params.trained().flatten(grads), metrics)

    stats, (grads, metrics) = in_parts(gradients, state.g.batch_stats, batch, self.accumulate)
    metrics['g/grad_norm'] = optax.global_norm(grads)
    g = update_network(state.g, grads, stats, self.g_tx)
    return advance(state, g, state.d, self.ema), metrics

  def terms(self, state: TrainState, batch: Batch, frozen: Mapping[str, PyTree]) -> Metrics:
    """Returns the weighted loss terms on a batch, for validation; nothing is updated.

    Uses the weights that are trained, not their moving average, and BatchNorm's running
    statistics, so that the result for one image does not depend on the others.
    """
    return self.loss.reconstruction(_apply(self.generator, state.g, batch['lr']), target(batch),
                                    self.vgg, frozen)


@dataclasses.dataclass(frozen=True, eq=False)
class GanStep:
  """Updates the generator and the discriminator together, from one forward pass of each.

  Uses three pullbacks (`jax.vjp`): of G, of D on real images and of D on generated images. Both
  losses are functions of the logits and their gradients go back through these pullbacks, so
  nothing is computed twice, whatever the loss. D's running statistics, and the vectors of its
  spectral normalisation, see the real batch, then the generated one. Both gradients are taken at
  the weights before the step. D gets 'hr' even if the batch has a 'target'.

  Attributes:
    generator, discriminator: the networks that are trained.
    g_tx, d_tx: their optimisers.
    loss: the generator's weighted terms; it also names the adversarial loss of D.
    ema: decay of the moving average of the generator's weights.
    vgg: the feature extractor of the perceptual term, or None.
    trainable: which arrays of the generator are trained; None trains all of them. D's always are.
    accumulate: number of parts that a batch is split into, see `accumulation.in_parts`.
  """

  generator: nn.Module
  discriminator: nn.Module
  g_tx: optax.GradientTransformation
  d_tx: optax.GradientTransformation
  loss: GeneratorLoss
  ema: float
  vgg: nn.Module | None = None
  trainable: Trainable | None = None
  accumulate: int = 1

  def __call__(self, state: TrainState, batch: Batch,
               frozen: Mapping[str, PyTree]) -> tuple[TrainState, Metrics]:
    """Returns (state, metrics): `g/<term>`, `g/total` and `d/total` as they are summed, `d/real`
    and `d/fake`, the shares of real and generated images that D classifies correctly, and the
    norms of both gradients.
    """
    gradients = functools.partial(self._gradients, state, frozen)
    stats = state.g.batch_stats, state.d.batch_stats
    (g_stats, d_stats), (g_grads, d_grads, metrics) = in_parts(
        gradients, stats, batch, self.accumulate)
    metrics |= {'g/grad_norm': optax.global_norm(g_grads),
                'd/grad_norm': optax.global_norm(d_grads)}
    g = update_network(state.g, g_grads, g_stats, self.g_tx)
    d = update_network(state.d, d_grads, d_stats, self.d_tx)
    return advance(state, g, d, self.ema), metrics

  def _gradients(self, state: TrainState, frozen: Mapping[str, PyTree],
                 stats: tuple[FlatTree, FlatTree], batch: Batch, part: Part
                 ) -> tuple[tuple[FlatTree, FlatTree], tuple[FlatTree, FlatTree, Metrics]]:
    """Returns ((G's statistics, D's), (G's gradient, D's, metrics))."""
    g_stats, d_stats = stats
    loss = self.loss
    adversarial_g, adversarial_d = map(jax.named_scope('losses'),
                                       losses.ADVERSARIAL[loss.adversarial])
    judge = functools.partial(discriminate, self.discriminator)
    g_params = _tree(state.g.params, 'generator')
    d_params = _tree(state.d.params, 'discriminator')
    sr, g_pullback, g_stats = jax.vjp(
        lambda params: generate(self.generator, params, g_stats, batch['lr'], self.trainable,
                                step_rngs(self.generator, state, part)),
        g_params, has_aux=True)
    real, real_pullback, d_stats = jax.vjp(
        lambda params: judge(params, batch['hr'], d_stats), d_params, has_aux=True)
    fake, fake_pullback, d_stats = jax.vjp(
        lambda params, images: judge(params, images, d_stats),
        d_params, sr, has_aux=True)

    # D's loss: the pass on sr gives gradients for the weights and for sr; only the first is used,
    # which is what stop_gradient(sr) would give.
    d_loss, (to_real, to_fake) = jax.value_and_grad(adversarial_d, argnums=(0, 1))(real, fake)
    d_grads = jax.tree.map(jnp.add, real_pullback(to_real)[0], fake_pullback(to_fake)[0])

    # G's loss: of the same pass only the gradient for sr; D's logits on real images are constant.
    def adversarial_term(fake: jax.Array) -> jax.Array:
      return loss.adversarial_weight * adversarial_g(fake, real)

    def reconstruction(sr: jax.Array) -> tuple[jax.Array, Metrics]:
      terms = loss.reconstruction(sr, target(batch), self.vgg, frozen)
      return sum(terms.values(), jnp.float32(0)), terms  # every weight may be zero

    adversarial, to_fake = jax.value_and_grad(adversarial_term)(fake)
    (total, terms), to_sr = jax.value_and_grad(reconstruction, has_aux=True)(sr)
    g_grads, = g_pullback(to_sr + fake_pullback(to_fake)[1])

    terms['adversarial'] = adversarial
    real_accuracy, fake_accuracy = losses.accuracy(loss.adversarial, real, fake)
    metrics = {f'g/{name}': term for name, term in terms.items()} | {
        'g/total': total + adversarial, 'd/total': d_loss, 'd/real': real_accuracy,
        'd/fake': fake_accuracy}
    return (g_stats, d_stats), (state.g.params.trained().flatten(g_grads),
                                state.d.params.flatten(d_grads), metrics)

  def terms(self, state: TrainState, batch: Batch, frozen: Mapping[str, PyTree]) -> Metrics:
    """Returns G's terms as `PixelStep.terms` does, with the adversarial one, and D's.

    `d_total` is D's loss; `d_real` and `d_fake` are the shares that D classifies correctly.
    """
    loss = self.loss
    adversarial_g, adversarial_d = losses.ADVERSARIAL[loss.adversarial]
    sr = _apply(self.generator, state.g, batch['lr'])
    real, fake = (_apply(self.discriminator, state.d, images) for images in (batch['hr'], sr))
    real_accuracy, fake_accuracy = losses.accuracy(loss.adversarial, real, fake)
    return loss.reconstruction(sr, target(batch), self.vgg, frozen) | {
        'adversarial': loss.adversarial_weight * adversarial_g(fake, real),
        'd_total': adversarial_d(real, fake), 'd_real': real_accuracy, 'd_fake': fake_accuracy}


# Stages: what both steps are made of, and what profiling/parts.py times one by one ---------


def step_rngs(generator: nn.Module, state: TrainState, part: Part = 0) -> dict[str, jax.Array]:
  """Returns the random keys that G gets in a step, by name: 'drop_path', or none.

  They are a function of the seed, the step and the part of the batch alone, so that a resumed run
  draws what an uninterrupted one does. Only a network whose field `drop_path` is above 0 gets one.
  """
  if not getattr(generator, 'drop_path', 0):
    return {}
  key = jax.random.key(state.seed)
  for number in (state.step, DROP_PATH, part):
    key = jax.random.fold_in(key, number)
  return {'drop_path': key}


@jax.named_scope('generator')
def generate(generator: nn.Module, params: PyTree, batch_stats: FlatTree, lr: jax.Array,
             trainable: Trainable | None = None, rngs: Mapping[str, jax.Array] | None = None
             ) -> tuple[jax.Array, FlatTree]:
  """Runs G in training mode: BatchNorm uses the batch.

  Args:
    params: a nested dict, so that gradients with respect to it are per array and can be added
      before they are joined.
    rngs: of `step_rngs`; None for a network that draws no random numbers.

  Returns:
    (sr [B, h * s, w * s, C] in [0, 1], new running statistics).
  """
  with freezing.freeze_norms(trainable):
    sr, new = generator.apply({'params': freezing.stop_frozen_gradients(params, trainable),
                               'batch_stats': batch_stats.tree()}, lr,
                              train=True, mutable=['batch_stats'], rngs=rngs)
  return sr, batch_stats.flatten(new.get('batch_stats', {}))


@jax.named_scope('discriminator')
def discriminate(discriminator: nn.Module, params: PyTree, images: jax.Array,
                 batch_stats: FlatTree) -> tuple[jax.Array, FlatTree]:
  """Runs D in training mode; see `generate`.

  Returns:
    (logits [B, ...], new running statistics).
  """
  logits, new = discriminator.apply({'params': params, 'batch_stats': batch_stats.tree()},
                                    images, train=True, mutable=['batch_stats'])
  return logits, batch_stats.flatten(new.get('batch_stats', {}))


@jax.named_scope('optimiser')
def update_network(net: NetState, grads: FlatTree, batch_stats: FlatTree,
                   tx: optax.GradientTransformation) -> NetState:
  """Applies gradients of `net.params.trained()`; what is frozen keeps its bits."""
  params = net.params.trained()
  updates, opt_state = tx.update(grads, net.opt_state, params)
  return NetState(net.params.replace(optax.apply_updates(params, updates)),
                  net.batch_stats.replace(batch_stats.trained()), opt_state)


@jax.named_scope('ema')
def advance(state: TrainState, g: NetState, d: NetState | None, decay: float) -> TrainState:
  """Counts the step and moves the average of G's weights and BatchNorm statistics.

  The decay starts low, (1 + step) / (10 + step), so that the average of a short run does not
  consist mostly of the random initial weights. The average of an optimiser that computes one itself
  takes its place.
  """
  if (averaged := averaged_weights(g)) is not None:
    ema = Average(state.ema.params.replace(averaged), g.batch_stats)
    return state._replace(step=state.step + 1, g=g, d=d, ema=ema)
  now = state.step.astype(jnp.float32)
  decay = jnp.minimum(decay, (1 + now) / (10 + now))
  ema = Average(*(old.replace(jax.tree.map(
      lambda old, new: old + (1 - decay) * (new - old), old.trained(), new.trained()))
      for old, new in zip(state.ema, (g.params, g.batch_stats), strict=True)))
  return state._replace(step=state.step + 1, g=g, d=d, ema=ema)


def _apply(network: nn.Module, net: NetState, images: jax.Array) -> Any:
  return network.apply(variables(net), images)


def _tree(arrays: FlatTree, scope: str) -> PyTree:
  with jax.named_scope(scope):
    return arrays.tree()

"""Runs a training step in parts, each a program of its own, so that each can be timed.

The parts do what `train_step.PixelStep` and `train_step.GanStep` do in one program, with the same
functions and in the same order. The input of a part is what the part before it left on the
device, including the residuals of a forward pass.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from sr_jax import losses
from sr_jax.losses import GeneratorLoss
from sr_jax.profiling import timing
from sr_jax.step import train_step
from sr_jax.step.flat import FlatTree
from sr_jax.step.nonfinite import SkipNonfinite
from sr_jax.step.state import Batch, Metrics, PyTree, TrainState, target
from sr_jax.step.train_step import GanStep, PixelStep

ONCE = 'batch', 'update'  # parts that run once a step, whatever config.accumulate is
RunPart = Callable[..., Any]  # (name, function, *arguments) -> function(*arguments)


def take_step(run: RunPart, step: SkipNonfinite, batch_at: Callable, state: TrainState,
              source: Any, frozen: Mapping[str, PyTree]) -> tuple[TrainState, Metrics]:
  """Takes one step part by part. With config.accumulate, only on the first part of the batch.

  Args:
    run: (name, function, *arguments) -> function(*arguments), for example timed. A name always
      comes with the same function, and the first argument of 'update' is not needed afterwards.
    step: of an `experiment.phases.Phase`.

  Returns:
    (state, metrics), equal to the step's own except for the order of additions.
  """
  inner = step.step
  discriminator = getattr(inner, 'discriminator', None)
  perceptual = bool(inner.loss.perceptual_weight)
  batch = run('batch', batch_at, source, state.seed, state.step)
  size = len(batch['lr']) // inner.accumulate
  lr, hr, compared = (images[:size] for images in (batch['lr'], batch['hr'], target(batch)))
  sr, g_pullback, g_stats = run(
      'generator forward', functools.partial(_generator_forward, inner), state.g.params,
      state.g.batch_stats, lr, train_step.step_rngs(inner.generator, state))
  sr_features = hr_features = d_grads = d_stats = None
  logits = ()
  if perceptual:
    sr_features, vgg_pullback, hr_features = run(
        'vgg forward', functools.partial(_vgg_forward, inner), sr, compared, frozen)
  if discriminator:
    *logits, real_pullback, fake_pullback, d_stats = run(
        'discriminator forward', functools.partial(_discriminator_forward, discriminator),
        state.d.params, state.d.batch_stats, sr, hr)
  metrics, direct, to_features, to_logits = run(
      'losses', functools.partial(_losses, inner.loss), sr, compared, sr_features, hr_features,
      *logits)
  to_sr = [direct]
  if perceptual:
    to_sr += run('vgg backward', _pull_back, vgg_pullback, to_features)
  if discriminator:
    d_grads, through = run('discriminator backward', _discriminator_backward, real_pullback,
                           fake_pullback, *to_logits)
    to_sr.append(through)
  g_grads, = run('generator backward', _pull_back_sum, g_pullback, to_sr)
  return run('update', functools.partial(_update, step), state, g_grads, g_stats, d_grads,
             d_stats, metrics)


def part_costs(step: SkipNonfinite, timed: timing.Timed) -> dict[str, dict[str, float]]:
  """Returns {part: {'seconds', 'flops', 'bytes'}} for a whole step.

  Args:
    timed: has run `take_step`.
  """
  costs = {}
  for name in (name for name in timed.programs if name != 'step'):
    cost = {'seconds': timed.median(name)} | timing.cost(
        timed.programs[name], timed.products.get(name))
    repeats = 1 if name in ONCE else step.step.accumulate
    costs[name] = {key: value * repeats for key, value in cost.items()}
  return costs


def _generator_forward(step: PixelStep | GanStep, params: FlatTree, batch_stats: FlatTree,
                       lr: jax.Array, rngs: Mapping[str, jax.Array]
                       ) -> tuple[jax.Array, Callable, FlatTree]:
  return jax.vjp(lambda params: train_step.generate(step.generator, params, batch_stats, lr,
                                                    step.trainable, rngs),
                 params.tree(), has_aux=True)


def _vgg_forward(step: PixelStep | GanStep, sr: jax.Array, hr: jax.Array,
                 frozen: Mapping[str, PyTree]) -> tuple[PyTree, Callable, PyTree]:
  def features(images: jax.Array) -> PyTree:
    return step.loss.features(images, step.vgg, frozen)

  return *jax.vjp(features, sr), features(hr)


def _discriminator_forward(discriminator: Any, params: FlatTree, batch_stats: FlatTree,
                           sr: jax.Array, hr: jax.Array) -> tuple:
  judge, arrays = functools.partial(train_step.discriminate, discriminator), params.tree()
  real, real_pullback, stats = jax.vjp(lambda arrays: judge(arrays, hr, batch_stats), arrays,
                                       has_aux=True)
  fake, fake_pullback, stats = jax.vjp(lambda arrays, sr: judge(arrays, sr, stats), arrays, sr,
                                       has_aux=True)
  return real, fake, real_pullback, fake_pullback, stats


def _losses(loss: GeneratorLoss, sr: jax.Array, hr: jax.Array, sr_features: PyTree,
            hr_features: PyTree, *logits: jax.Array) -> tuple[Metrics, jax.Array, PyTree, tuple]:
  """Returns (metrics, gradients for sr, for its features, for the logits)."""
  def total(sr: jax.Array, sr_features: PyTree) -> tuple[jax.Array, Metrics]:
    terms = loss.reconstruction_terms(sr, hr, sr_features, hr_features)
    return sum(terms.values(), jnp.float32(0)), terms

  (value, terms), (to_sr, to_features) = jax.value_and_grad(total, (0, 1), has_aux=True)(
      sr, sr_features)
  metrics = {f'g/{name}': term for name, term in terms.items()} | {'g/total': value}
  if not logits:
    return metrics, to_sr, to_features, ()
  more, to_logits = _adversarial_losses(loss, *logits)
  metrics['g/total'] += more['g/adversarial']
  return metrics | more, to_sr, to_features, to_logits


def _adversarial_losses(loss: GeneratorLoss, real: jax.Array,
                        fake: jax.Array) -> tuple[Metrics, tuple]:
  """Returns (metrics, (gradients of D's loss for real and fake, of G's loss for fake))."""
  adversarial_g, adversarial_d = losses.ADVERSARIAL[loss.adversarial]
  d_loss, to_logits = jax.value_and_grad(adversarial_d, (0, 1))(real, fake)
  term, to_fake = jax.value_and_grad(
      lambda fake: loss.adversarial_weight * adversarial_g(fake, real))(fake)
  accuracy = losses.accuracy(loss.adversarial, real, fake)
  return {'g/adversarial': term, 'd/total': d_loss, 'd/real': accuracy[0],
          'd/fake': accuracy[1]}, (*to_logits, to_fake)


def _discriminator_backward(real_pullback: Callable, fake_pullback: Callable, to_real: jax.Array,
                            to_fake: jax.Array, of_g: jax.Array) -> tuple[PyTree, jax.Array]:
  """Returns (D's gradient, the gradient of G's adversarial term for sr)."""
  grads = jax.tree.map(jnp.add, real_pullback(to_real)[0], fake_pullback(to_fake)[0])
  return grads, fake_pullback(of_g)[1]


def _pull_back(pullback: Callable, gradient: PyTree) -> tuple:
  return pullback(gradient)


def _pull_back_sum(pullback: Callable, gradients: list[jax.Array]) -> tuple:
  return pullback(sum(gradients))


def _update(step: SkipNonfinite, state: TrainState, g_grads: PyTree, g_stats: PyTree,
            d_grads: PyTree, d_stats: PyTree, metrics: Metrics) -> tuple[TrainState, Metrics]:
  inner, g_grads = step.step, state.g.params.trained().flatten(g_grads)

  def update(state: TrainState, batch: Batch, frozen: Mapping[str, PyTree]
             ) -> tuple[TrainState, Metrics]:
    g = train_step.update_network(state.g, g_grads, g_stats, inner.g_tx)
    norms, d = {'g/grad_norm': optax.global_norm(g_grads)}, state.d
    if d_grads is not None:
      joined = state.d.params.flatten(d_grads)
      d = train_step.update_network(state.d, joined, d_stats, inner.d_tx)
      norms['d/grad_norm'] = optax.global_norm(joined)
    return train_step.advance(state, g, d, inner.ema), metrics | norms

  return SkipNonfinite(update, step.max_bad)(state, {}, {})

"""A training step in parts, each a program of its own, so that each can be timed.

What `steps.pixel_step` and `steps.gan_step` do in one program, by the same functions, in the same
order: what goes into a part is what the part before it has left on the device, the residuals of a
forward pass included.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from sr_jax import losses
from sr_jax.profiling import timing
from sr_jax.step import nonfinite, train_step
from sr_jax.step.state import TrainState

ONCE = 'batch', 'update'  # in a step, whatever config.accumulate is


def bound(step: Callable) -> dict:
  """What is bound to a `build.Phase`'s step, whatever functions it is wrapped in."""
  found = {}
  while isinstance(step, functools.partial):
    found = step.keywords | found
    step = step.keywords.get('step', step.func)
  return found


def take_step(run: Callable, step: Callable, batch_at: Callable, state: TrainState, source, frozen):
  """`steps.one_step`, part by part. With config.accumulate, on the first share of the batch.

  Args:
    run: (name, function, *arguments) -> function(*arguments), however it likes; a function of a
      name is always the same, and the first argument of 'update' is not needed afterwards.
    step: a `build.Phase`'s.

  Returns:
    (state, metrics), the step's own but for what another order of adding makes of them.
  """
  fixed = bound(step)
  generator, discriminator = fixed['generator'], fixed.get('discriminator')
  loss, vgg, trainable = fixed['loss'], fixed.get('vgg'), fixed.get('trainable')

  def generate(params, batch_stats, lr):
    return jax.vjp(lambda params: train_step._generate(generator, params, batch_stats, lr, trainable),
                   params, has_aux=True)

  def see(sr, hr, frozen):
    return *jax.vjp(lambda sr: loss.features(sr, vgg, frozen), sr), loss.features(hr, vgg, frozen)

  def discriminate(params, batch_stats, sr, hr):
    judge = functools.partial(train_step._discriminate, discriminator)
    real, real_pullback, stats = jax.vjp(lambda params: judge(params, hr, batch_stats), params,
                                         has_aux=True)
    fake, fake_pullback, stats = jax.vjp(lambda params, sr: judge(params, sr, stats), params, sr,
                                         has_aux=True)
    return real, fake, real_pullback, fake_pullback, stats

  def compare(sr, hr, sr_features, hr_features):
    """Metrics, and the loss's gradients to the pictures and to their features."""
    def total(sr, sr_features):
      terms = loss.compared(sr, hr, sr_features, hr_features)
      return sum(terms.values(), jnp.float32(0)), terms
    (value, terms), to = jax.value_and_grad(total, (0, 1), has_aux=True)(sr, sr_features)
    return {f'g/{name}': term for name, term in terms.items()} | {'g/total': value}, *to

  def oppose(real, fake):
    """Metrics, and the gradients of D's loss to both logits and of G's to those of sr."""
    adversarial_g, adversarial_d = losses.ADVERSARIAL[loss.adversarial]
    d_loss, to = jax.value_and_grad(adversarial_d, (0, 1))(real, fake)
    term, to_fake = jax.value_and_grad(
        lambda fake: loss.adversarial_weight * adversarial_g(fake, real))(fake)
    right = losses.right_answers(loss.adversarial, real, fake)
    return {'g/adversarial': term, 'd/total': d_loss, 'd/real': right[0], 'd/fake': right[1]}, (
        *to, to_fake)

  def lose(sr, hr, sr_features, hr_features, *logits):
    metrics, to_sr, to_features = compare(sr, hr, sr_features, hr_features)
    if not logits:
      return metrics, to_sr, to_features, ()
    more, to_logits = oppose(*logits)
    metrics['g/total'] += more['g/adversarial']
    return metrics | more, to_sr, to_features, to_logits

  def discriminate_backward(real_pullback, fake_pullback, to_real, to_fake, of_g):
    grads = jax.tree.map(jnp.add, real_pullback(to_real)[0], fake_pullback(to_fake)[0])
    return grads, fake_pullback(of_g)[1]

  def update(state, g_grads, g_stats, d_grads, d_stats, metrics):
    def updated(state, batch, frozen):
      g = train_step._update(state.g, g_grads, g_stats, fixed.get('g_tx') or fixed['tx'], trainable)
      norms, d = {'g/grad_norm': optax.global_norm(g_grads)}, state.d
      if discriminator:
        d = train_step._update(state.d, d_grads, d_stats, fixed['d_tx'])
        norms['d/grad_norm'] = optax.global_norm(d_grads)
      return train_step._advance(state, g, d, fixed['ema'], trainable), metrics | norms
    return nonfinite.skip_nonfinite(state, None, None, step=updated, max_bad=fixed['max_bad'],
                         trainable=trainable)

  batch = run('batch', batch_at, source, state.seed, state.step)
  size = len(batch['lr']) // fixed.get('accumulate', 1)
  lr, hr = batch['lr'][:size], batch['hr'][:size]
  sr, g_pullback, g_stats = run('generator forward', generate, state.g.params,
                                state.g.batch_stats, lr)
  sr_features = hr_features = d_grads = d_stats = None
  logits = ()
  if loss.perceptual_weight:
    sr_features, vgg_pullback, hr_features = run('vgg forward', see, sr, hr, frozen)
  if discriminator:
    *logits, real_pullback, fake_pullback, d_stats = run(
        'discriminator forward', discriminate, state.d.params, state.d.batch_stats, sr, hr)
  metrics, direct, to_features, to_logits = run('losses', lose, sr, hr, sr_features, hr_features,
                                               *logits)
  to_sr = [direct]
  if loss.perceptual_weight:
    to_sr += run('vgg backward', lambda pullback, to: pullback(to), vgg_pullback, to_features)
  if discriminator:
    d_grads, through = run('discriminator backward', discriminate_backward, real_pullback,
                           fake_pullback, *to_logits)
    to_sr.append(through)
  g_grads, = run('generator backward', lambda pullback, to: pullback(sum(to)), g_pullback, to_sr)
  return run('update', update, state, g_grads, g_stats, d_grads, d_stats, metrics)


def figures(step: Callable, timed) -> dict[str, dict[str, float]]:
  """{part: {'seconds', 'flops', 'bytes'}} of a whole step, of what `take_step` ran by `timed`."""
  shares = bound(step).get('accumulate', 1)
  found = {}
  for name in (name for name in timed.programs if name != 'step'):
    of = {'seconds': timed.median(name)} | timing.cost(
        timed.programs[name], timed.products.get(name))
    found[name] = {key: value * (1 if name in ONCE else shares) for key, value in of.items()}
  return found

"""One training step, pure: (state, batch, frozen) -> (state, metrics).

Static things (models, optimisers, losses) are bound with `functools.partial`; arrays are
arguments. `frozen` holds what is never trained: {} or {'vgg': variables}. Named scopes say in a
trace what an operation is part of; they change nothing of what is computed.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from sr_jax import losses
from sr_jax.losses import GeneratorLoss
from sr_jax.step import freezing, nonfinite
from sr_jax.step.freezing import Trainable
from sr_jax.step.state import NetState, TrainState


def pixel_step(state: TrainState, batch, frozen, *, generator, tx, loss: GeneratorLoss,
               ema: float, vgg=None, trainable: Trainable | None = None, accumulate: int = 1):
  """Trains the generator alone; the discriminator, where there is one, rests.

  Args:
    trainable: which arrays of the generator do; None is all.
    accumulate: parts of the batch that are gone through one after another, see `in_parts`.

  Returns:
    (state, metrics): metrics are float32 scalars, `g/<term>` weighted as they are summed.
  """
  def gradients(g_stats, batch):
    def objective(params):
      sr, stats = _generate(generator, params, g_stats, batch['lr'], trainable)
      terms = loss.reconstruction(sr, batch['hr'], vgg, frozen)
      return sum(terms.values()), (terms, stats)

    (total, (terms, stats)), grads = jax.value_and_grad(objective, has_aux=True)(state.g.params)
    return stats, (grads, {f'g/{name}': term for name, term in terms.items()} | {'g/total': total})

  stats, (grads, metrics) = in_parts(gradients, state.g.batch_stats, batch, accumulate)
  metrics['g/grad_norm'] = optax.global_norm(grads)
  g = _update(state.g, grads, stats, tx, trainable)
  return _advance(state, g, state.d, ema, trainable), metrics


def gan_step(state: TrainState, batch, frozen, *, generator, discriminator, g_tx, d_tx,
             loss: GeneratorLoss, ema: float, vgg=None, trainable: Trainable | None = None,
             accumulate: int = 1):
  """Updates generator and discriminator at once from one forward pass of each.

  Three pullbacks (`jax.vjp`): of G, of D on real pictures, of D on generated ones. Both
  losses are functions of the logits, and their gradients go back through the pullbacks,
  so nothing is computed twice, whatever the loss. D's running statistics see the real
  batch, then the generated one. Both gradients are taken at the weights before the step.

  Args:
    trainable: which arrays of the generator do; None is all. D's always do.
    accumulate: parts of the batch that are gone through one after another, see `in_parts`.

  Returns:
    (state, metrics): `g/<term>` and `d/total` as they are summed, `d/real` and `d/fake`
    the share of each that D takes for what it is, and gradient norms.
  """
  adversarial_g, adversarial_d = map(jax.named_scope('losses'),
                                     losses.ADVERSARIAL[loss.adversarial])
  discriminate = functools.partial(_discriminate, discriminator)

  def gradients(stats, batch):
    g_stats, d_stats = stats
    sr, g_pullback, g_stats = jax.vjp(
        lambda params: _generate(generator, params, g_stats, batch['lr'], trainable),
        state.g.params, has_aux=True)
    real, real_pullback, d_stats = jax.vjp(
        lambda params: discriminate(params, batch['hr'], d_stats), state.d.params, has_aux=True)
    fake, fake_pullback, d_stats = jax.vjp(
        lambda params, images: discriminate(params, images, d_stats),
        state.d.params, sr, has_aux=True)

    # D: of the two inputs of its pass on sr, only the weights' gradient is kept, which is
    # what stop_gradient(sr) means.
    d_loss, (to_real, to_fake) = jax.value_and_grad(adversarial_d, argnums=(0, 1))(real, fake)
    d_grads = jax.tree.map(jnp.add, real_pullback(to_real)[0], fake_pullback(to_fake)[0])

    # G: of the same pass only the pictures' gradient; D's answer to real ones is a constant.
    def adversarial_term(fake):
      return loss.adversarial_weight * adversarial_g(fake, real)

    def reconstruction(sr):
      terms = loss.reconstruction(sr, batch['hr'], vgg, frozen)
      return sum(terms.values(), jnp.float32(0)), terms  # there may be none

    adversarial, to_fake = jax.value_and_grad(adversarial_term)(fake)
    (total, terms), to_sr = jax.value_and_grad(reconstruction, has_aux=True)(sr)
    g_grads, = g_pullback(to_sr + fake_pullback(to_fake)[1])

    terms['adversarial'] = adversarial
    right_real, right_fake = losses.right_answers(loss.adversarial, real, fake)
    metrics = {f'g/{name}': term for name, term in terms.items()} | {
        'g/total': total + adversarial, 'd/total': d_loss, 'd/real': right_real,
        'd/fake': right_fake}
    return (g_stats, d_stats), (g_grads, d_grads, metrics)

  stats = state.g.batch_stats, state.d.batch_stats
  (g_stats, d_stats), (g_grads, d_grads, metrics) = in_parts(gradients, stats, batch, accumulate)
  metrics |= {'g/grad_norm': optax.global_norm(g_grads),
              'd/grad_norm': optax.global_norm(d_grads)}
  g = _update(state.g, g_grads, g_stats, g_tx, trainable)
  d = _update(state.d, d_grads, d_stats, d_tx)
  return _advance(state, g, d, ema, trainable), metrics


def in_parts(gradients: Callable, stats, batch, parts: int):
  """A batch whose activations have no room at once: its gradients, a part of it at a time.

  On a CPU next to nothing is saved: XLA's convolutions are ten times slower in a loop there, so
  the parts are compiled as one, and XLA goes through them as it likes.

  Losses are means over crops, so the mean of the parts' gradients is the batch's. But what
  goes by the other crops of a batch goes by those of its part: BatchNorm's statistics, and
  the mean in the relativistic loss; running statistics move once a part.

  Args:
    gradients: (stats, batch) -> (stats, any tree of float arrays).
    stats: BatchNorm's running statistics, handed from part to part.
    batch: {name: [B, ...]}, B a multiple of `parts`. Part i has the crops i, i + parts, ...: on
      several devices, as many of each device's.

  Returns:
    (stats after the last part, the mean of the trees).
  """
  if parts == 1:
    return gradients(stats, batch)
  batch = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

  def add(carry, part):
    stats, sums = carry
    stats, found = gradients(stats, part)
    return (stats, jax.tree.map(jnp.add, sums, found)), None

  shapes = jax.eval_shape(gradients, stats, jax.tree.map(lambda x: x[0], batch))[1]
  sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  (stats, sums), _ = lax.scan(add, (stats, sums), batch, unroll=jax.default_backend() == 'cpu')
  return stats, jax.tree.map(lambda leaf: leaf / parts, sums)


def pixel_terms(state: TrainState, batch, frozen, *, generator, loss: GeneratorLoss, vgg=None):
  """The generator's weighted terms on a batch, for watching: nothing is updated.

  The weights are those that are trained, not their average; BatchNorm goes by its running
  statistics, so that a picture's result does not depend on its neighbours.

  Returns:
    {term: float32 scalar}, as `pixel_step` sums them.
  """
  return loss.reconstruction(_apply(generator, state.g, batch['lr']), batch['hr'], vgg, frozen)


def gan_terms(state: TrainState, batch, frozen, *, generator, discriminator, loss: GeneratorLoss,
              vgg=None):
  """As `pixel_terms`, with the adversarial term and what D makes of the same batch.

  Returns:
    {term: float32 scalar}: `d_total` is D's loss, `d_real` and `d_fake` the share of each
    that it takes for what it is.
  """
  adversarial_g, adversarial_d = losses.ADVERSARIAL[loss.adversarial]
  sr = _apply(generator, state.g, batch['lr'])
  real, fake = (_apply(discriminator, state.d, picture) for picture in (batch['hr'], sr))
  right_real, right_fake = losses.right_answers(loss.adversarial, real, fake)
  return loss.reconstruction(sr, batch['hr'], vgg, frozen) | {
      'adversarial': loss.adversarial_weight * adversarial_g(fake, real),
      'd_total': adversarial_d(real, fake), 'd_real': right_real, 'd_fake': right_fake}


def begin_phase(state: TrainState, g_tx) -> TrainState:
  """The state that a phase starts from: the generator's moments anew, no step yet that was bad.

  The gradients of a new loss have another size; moments of the old one would make the
  first hundreds of steps too long. Doing it twice changes nothing, so a run that is
  resumed at the boundary goes on as one that was not; nor does it at step 0.
  """
  health = state.health._replace(bad=jnp.int32(0), saturated=jnp.int32(0))
  return state._replace(g=state.g._replace(opt_state=g_tx.init(state.g.params)), health=health)


def generated(state: TrainState, batch, *, generator, trainable: Trainable | None = None):
  """What a step makes of its batch's LR and compares with HR: BatchNorm goes by the batch."""
  return _generate(generator, state.g.params, state.g.batch_stats, batch['lr'], trainable)[0]


def train_steps(state: TrainState, source, frozen, start, stop, *, step: Callable,
                batch_at: Callable, max_bad: int | None = None):
  """Steps start .. stop - 1 in one dispatch: a device loop with traced bounds.

  However a run is cut into dispatches, each step is the same compiled code, so the bits
  are the same. On the CPU XLA runs convolutions inside a loop several times slower:
  use `one_step` there.

  Args:
    source: what `batch_at(source, seed, step)` reads: a Bank, or Batches for these steps.
    start, stop: integers, traced; stop > start == state.step.
    step: a `build.Phase`'s, or `pixel_step` or `gan_step` with everything but its first three
      arguments bound.
    max_bad: of `guard.guarded`; the loop ends where the state stands still.

  Returns:
    (state, metrics of the last step). Where none was taken, what it would have measured is nan.
  """
  def goes_on(carry):
    index, state, _ = carry
    return (index < stop) if max_bad is None else (index < stop) & (state.health.bad < max_bad)

  def body(carry):
    index, state, _ = carry
    return index + 1, *step(state, _batch(batch_at, source, state.seed, index), frozen)

  start = jnp.int32(start)
  metrics = jax.eval_shape(lambda state: body((start, state, None))[2], state)
  nothing = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), metrics)
  _, state, metrics = lax.while_loop(goes_on, body, (start, state, nothing))
  if max_bad is not None:
    metrics |= nonfinite.health_metrics(state.health, 'd/real' in metrics)
  return state, metrics


def one_step(state: TrainState, source, frozen, start=None, stop=None, *, step: Callable,
             batch_at: Callable):
  """A batch and a step: what `train_steps` is where nothing is looped. `state.step` is `start`."""
  return step(state, _batch(batch_at, source, state.seed, state.step), frozen)


@jax.named_scope('batch')
def _batch(batch_at, source, seed, step):
  return batch_at(source, seed, step)


def _apply(network, net: NetState, picture):
  return network.apply({'params': net.params, 'batch_stats': net.batch_stats}, picture)


@jax.named_scope('discriminator')
def _discriminate(discriminator, params, images, batch_stats):
  logits, changed = discriminator.apply({'params': params, 'batch_stats': batch_stats},
                                        images, train=True, mutable=['batch_stats'])
  return logits, changed.get('batch_stats', {})


@jax.named_scope('generator')
def _generate(generator, params, batch_stats, lr, trainable=None):
  with freezing.freeze_norms(trainable):
    sr, changed = generator.apply({'params': freezing.stop_frozen_gradients(params, trainable),
                                   'batch_stats': batch_stats}, lr,
                                  train=True, mutable=['batch_stats'])
  return sr, changed.get('batch_stats', {})


@jax.named_scope('optimiser')
def _update(net: NetState, grads, batch_stats, tx, trainable=None) -> NetState:
  updates, opt_state = tx.update(grads, net.opt_state, net.params)
  old = {'params': net.params, 'batch_stats': net.batch_stats}
  new = {'params': optax.apply_updates(net.params, updates), 'batch_stats': batch_stats}
  return NetState(**freezing.keep_frozen(old, new, trainable), opt_state=opt_state)


@jax.named_scope('average')
def _advance(state: TrainState, g: NetState, d: NetState | None, decay: float,
             trainable=None) -> TrainState:
  """One step on; the moving average follows G, BatchNorm statistics included.

  Its decay starts low, (1 + step) / (10 + step), so that a short run's average is not
  mostly its random beginning.
  """
  now = state.step.astype(jnp.float32)
  decay = jnp.minimum(decay, (1 + now) / (10 + now))
  ema = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.ema,
                     {'params': g.params, 'batch_stats': g.batch_stats})
  ema = freezing.keep_frozen(state.ema, ema, trainable)
  return state._replace(step=state.step + 1, g=g, d=d, ema=ema)

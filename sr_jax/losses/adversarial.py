"""The losses of a generator and a discriminator.

All are functions of logits: softplus(x) = log(1 + e^x) neither overflows nor takes log(0).
A generator's loss takes (fake, real), a discriminator's (real, fake).
"""

import jax
import jax.numpy as jnp
from jax.nn import softplus


def vanilla_generator(fake: jax.Array, real: jax.Array | None = None) -> jax.Array:
  """Returns mean -log sigmoid(D(fake)), the non-saturating form (Ledig et al. 2017, equation 6)."""
  del real
  return jnp.mean(softplus(-fake))


def vanilla_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Returns mean -log sigmoid(D(real)) + mean -log(1 - sigmoid(D(fake))).

  This is the loss of Goodfellow et al. 2014.
  """
  return jnp.mean(softplus(-real)) + jnp.mean(softplus(fake))


def least_squares_generator(fake: jax.Array, real: jax.Array | None = None) -> jax.Array:
  """Returns 1/2 mean (D(fake) - 1)^2 (Mao et al. 2017, equation 9)."""
  del real
  return 0.5 * jnp.mean(jnp.square(fake - 1))


def least_squares_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Returns 1/2 mean (D(real) - 1)^2 + 1/2 mean D(fake)^2 (Mao et al. 2017, equation 9)."""
  return 0.5 * (jnp.mean(jnp.square(real - 1)) + jnp.mean(jnp.square(fake)))


def relativistic_generator(fake: jax.Array, real: jax.Array) -> jax.Array:
  """Returns 1/2 [mean -log D(fake, real) + mean -log(1 - D(real, fake))].

  Here D(a, b) = sigmoid(C(a) - mean C(b)) with logits C (Wang et al. 2018, equation 2, times 1/2
  as in their code). Means are over the entire batch.
  """
  return 0.5 * (jnp.mean(softplus(-(fake - jnp.mean(real))))
                + jnp.mean(softplus(real - jnp.mean(fake))))


def relativistic_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Returns 1/2 [mean -log D(real, fake) + mean -log(1 - D(fake, real))].

  Wang et al. 2018, equation 1, times 1/2 as in their code; see `relativistic_generator`.
  """
  return 0.5 * (jnp.mean(softplus(-(real - jnp.mean(fake))))
                + jnp.mean(softplus(fake - jnp.mean(real))))


def accuracy(kind: str, real: jax.Array, fake: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the fractions of real and of generated images that D classifies correctly.

  A logit counts as "real" above 0 (vanilla), above the midpoint of the targets 0 and 1
  (least squares), or above the mean of the other kind's logits (relativistic).

  Args:
    kind: a name in `ADVERSARIAL`.
  """
  thresholds = {'vanilla': (0.0, 0.0), 'least_squares': (0.5, 0.5),
                'relativistic': (jnp.mean(fake), jnp.mean(real))}[kind]
  return (jnp.mean(real > thresholds[0], dtype=jnp.float32),
          jnp.mean(fake < thresholds[1], dtype=jnp.float32))


# (G's loss of (fake, real) logits, D's loss of (real, fake) logits); `accuracy` knows each, too.
ADVERSARIAL = {
    'vanilla': (vanilla_generator, vanilla_discriminator),
    'least_squares': (least_squares_generator, least_squares_discriminator),
    'relativistic': (relativistic_generator, relativistic_discriminator),
}

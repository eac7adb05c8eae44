"""Super-resolution networks in JAX and Flax: train, measure, use."""


def load(source, **options):
  """A network ready to use: `sr = sr_jax.load('runs/srgan')(lr)`; see `sr_jax.restore.load`."""
  from sr_jax import restore  # late: JAX is not needed to import the package
  return restore.load(source, **options)

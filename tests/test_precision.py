"""bfloat16 for the computation: losses and weights stay float32, and a run comes out as well."""

import jax
import jax.numpy as jnp
import pytest

from configs import srresnet
from sr_jax import train
from sr_jax.models import EDSR, RRDB, SRCNN, Compact, SRResNet
from sr_jax.models.discriminator import Discriminator
from sr_jax.models.vgg import VGG19
from sr_jax.runs.metrics_log import read_metrics


@pytest.mark.parametrize('model', [
    SRCNN(dtype=jnp.bfloat16), SRResNet(8, 1, dtype=jnp.bfloat16), EDSR(8, 1, dtype=jnp.bfloat16),
    RRDB(8, 1, dtype=jnp.bfloat16), Compact(8, 1, dtype=jnp.bfloat16),
    Discriminator(widths=(4, 8), dtype=jnp.bfloat16), VGG19(('relu2_2',), dtype=jnp.bfloat16)],
    ids=lambda model: type(model).__name__)
def test_what_losses_are_given_is_float32(model):
  """A mean of a million bfloat16 numbers keeps two or three digits of each."""
  pictures = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), pictures)
  given = jax.eval_shape(model.apply, variables, pictures)
  assert {leaf.dtype for leaf in jax.tree.leaves(given)} == {jnp.dtype('float32')}
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.slow
def test_a_short_run_comes_out_as_well(tmp_path, monkeypatch):
  """PSNR of the same 100 steps in both, of the same seed."""
  monkeypatch.chdir(tmp_path)
  found = {}
  for dtype in ('float32', 'bfloat16'):
    config = srresnet.get_config('sample')
    config.dtype, config.steps, config.batch_size, config.hr_patch = dtype, 100, 8, 48
    config.eval.lpips, config.sample_every, config.eval.every = 'none', 1000, 100
    train.train(config, tmp_path / dtype)
    found[dtype] = next(line['valid/psnr_y'] for line in read_metrics(tmp_path / dtype)
                        if line['step'] == 100 and 'valid/psnr_y' in line)
  assert min(found.values()) > 30.5
  assert found['bfloat16'] == pytest.approx(found['float32'], abs=0.05)

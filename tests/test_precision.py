"""Tests of computing in bfloat16: results and parameters stay float32, and training works."""

import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

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
def test_results_are_float32(model: nn.Module) -> None:
  """Losses average a million numbers, for which bfloat16's two or three digits don't suffice."""
  batch = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), batch)
  result = jax.eval_shape(model.apply, variables, batch)
  assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {jnp.dtype('float32')}
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}


@pytest.mark.slow
def test_a_short_run_reaches_the_same_psnr(tmp_path: pathlib.Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
  """Compares 100 steps with the same seed in both dtypes."""
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

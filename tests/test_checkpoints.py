"""Checkpoints: nothing changes on the way through the disk, nothing wrong is read."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sr_jax.checkpoints import Checkpoints, flat
from sr_jax.errors import InputError
from sr_jax.state import NetState, TrainState
from tests.conftest import same_bits


def make_state(step=3, width=4, dtype=np.float32):
  rng = np.random.default_rng(step)
  params = {'conv': {'kernel': jnp.asarray(rng.normal(size=(3, width)), dtype)}}
  g = NetState(params, {}, optax.adam(1e-3).init(params))
  ema = {'params': params, 'batch_stats': {}}
  return TrainState(jnp.int32(step), jnp.int32(7), g, None, ema)


@pytest.fixture
def folder(tmp_path):
  checkpoints = Checkpoints(tmp_path, 'psnr_y')
  for step, psnr in ((1, 9.0), (2, 11.0), (3, 10.0), (4, None)):
    checkpoints.save(make_state(step), psnr and {'psnr_y': psnr})
  checkpoints.close()
  return tmp_path


def test_round_trip_without_a_discriminator(folder):
  checkpoints = Checkpoints(folder, read_only=True)
  assert same_bits(checkpoints.restore(make_state(0)), make_state(4)) == []
  assert same_bits(checkpoints.restore(make_state(0), 3), make_state(3)) == []
  assert checkpoints.named('latest') == 4
  ema = checkpoints.restore_generator(make_state(0).ema, 4)
  assert same_bits(ema, make_state(4).ema) == []
  raw = checkpoints.restore_generator(make_state(0).ema, 3, raw=True)
  assert same_bits(raw['params'], make_state(3).g.params) == []


def test_last_two_and_best(folder):
  checkpoints = Checkpoints(folder, 'psnr_y', read_only=True)
  assert checkpoints.steps() == [2, 3, 4]
  assert checkpoints.best() == 2
  assert checkpoints.is_best({'psnr_y': 11.5})
  assert not checkpoints.is_best({'psnr_y': 10.5})
  assert not checkpoints.is_best({})


def test_lower_lpips_is_better(tmp_path):
  checkpoints = Checkpoints(tmp_path, 'lpips_alex')
  for step, value in ((1, 0.2), (2, 0.3), (3, 0.4), (4, 0.5)):
    checkpoints.save(make_state(step), {'lpips_alex': value, 'psnr_y': step})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path, 'lpips_alex', read_only=True)
  assert checkpoints.best() == 1
  assert checkpoints.steps() == [1, 3, 4]


def test_no_number_is_never_best(tmp_path):
  checkpoints = Checkpoints(tmp_path, 'psnr_y')
  for step, value in enumerate((29.0, 31.0, float('nan'), 20.0, 21.0, 22.0)):
    checkpoints.save(make_state(step), {'psnr_y': value})
  assert not checkpoints.is_best({'psnr_y': float('nan')})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path, 'psnr_y', read_only=True)
  assert checkpoints.best() == 1
  assert checkpoints.steps() == [1, 4, 5]


def test_wrong_shapes_types_and_names_are_named(folder):
  checkpoints = Checkpoints(folder, read_only=True)
  for target, message in (
      (make_state(width=5), r'conv/kernel is float32\[3, 4\] .* float32\[3, 5\]'),
      (make_state(dtype=jnp.bfloat16), r'conv/kernel is float32\[3, 4\] .* bfloat16\[3, 4\]'),
      (make_state()._replace(d=make_state().g), r'd/.* is absent in the checkpoint')):
    with pytest.raises(InputError, match=message):
      checkpoints.restore(target)


def test_missing_steps_are_named(folder, tmp_path):
  with pytest.raises(InputError, match=r'no checkpoint of step 1, but of \[2, 3, 4\]'):
    Checkpoints(folder, read_only=True).restore(make_state(), 1)
  with pytest.raises(InputError, match='no checkpoint'):
    Checkpoints(tmp_path / 'other', read_only=True).restore(make_state())


def test_reading_makes_nothing(tmp_path):
  assert Checkpoints(tmp_path / 'none', read_only=True).latest() is None
  assert not (tmp_path / 'none').exists()


def test_names_are_paths():
  assert 'g/params/conv/kernel' in flat(make_state())
  assert 'g/opt_state/0/mu/conv/kernel' in flat(make_state())

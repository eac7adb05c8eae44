"""A save leaves nothing in memory."""

import gc
import sys

import jax.numpy as jnp
import tensorstore

from sr_jax.experiment import phases
from sr_jax.runs import orbax_patches
from sr_jax.runs.checkpoints import Checkpoints


def test_saves_leave_no_objects(config, tmp_path):
  state = phases.build(config).new_state()
  kept = Checkpoints(tmp_path)
  blocks = []
  for step in range(1, 11):
    kept.save(state._replace(step=jnp.int32(step)))
    kept.wait()
    gc.collect()
    blocks.append(sys.getallocatedblocks())
  kept.close()
  # TensorStore's own would be some 1,200 a save, of this network's 53 arrays.
  assert (blocks[-1] - blocks[3]) / 6 < 100


def test_a_specification_says_what_it_said():
  spec = tensorstore.KvStore.Spec
  plain = getattr(spec.to_json, 'plain', spec.to_json)
  orbax_patches.patch_tensorstore()
  orbax_patches.patch_tensorstore()
  for described in ({'driver': 'file', 'path': '/a/b/'}, {'driver': 'memory', 'path': 'x'},
                    {'driver': 'file', 'path': '/a/b/', 'file_io_locking': {'mode': 'non_atomic'}}):
    made = spec(described)
    assert made.to_json() == plain(made)
    assert made.to_json(include_defaults=True) == plain(made, include_defaults=True)
  spec({'driver': 'file', 'path': '/c/'}).to_json()['path'] = 'changed'
  assert spec({'driver': 'file', 'path': '/c/'}).to_json()['path'] == '/c/'

"""FlatTree: the arrays of a network as vectors, under the names that everything else uses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sr_jax.step.flat import by_array, flatten, named_arrays, store_named
from sr_jax.step.state import Average
from tests.conftest import same_bits

TREE = {'a': {'kernel': jnp.arange(24.0).reshape(2, 1, 3, 4), 'slope': jnp.float32(-0.0)},
        'b': jnp.ones(5)}
TRAINED = {'a': {'kernel': True, 'slope': False}, 'b': True}


@pytest.fixture(params=[True, False], ids=['joined', 'separate'])
def joined(request):
  return request.param


def test_the_tree_comes_back_bit_by_bit(joined):
  for trained in (None, TRAINED):
    stored = flatten(TREE, trained, joined)
    assert same_bits(stored.tree(), TREE) == []
    assert same_bits(jax.jit(lambda stored: stored.tree())(stored), TREE) == []
    assert same_bits(stored.flatten(TREE), stored) == []
    assert stored.size == 30


def test_the_order_of_the_leaves_is_not_that_of_sorted_names(joined):
  tree = {'a': {'kernel': jnp.ones(3)}, 'a-b': {'kernel': 2 * jnp.ones(3)},
          'c': [number * jnp.ones(1) for number in range(11)]}
  stored = jax.jit(lambda stored: stored)(flatten(tree, joined=joined))
  assert list(stored.arrays())[:2] == ['a/kernel', 'a-b/kernel']
  assert same_bits(stored.tree(), tree) == []


def test_arrays_are_joined_to_one_vector_for_each_group():
  stored = flatten(TREE, TRAINED)
  assert {name: vector.shape for name, vector in stored.vectors.items()} == {
      'trained kernels': (24,), 'trained others': (5,), 'frozen others': (1,)}
  assert flatten({}).vectors == flatten({}, joined=False).vectors == {}
  assert flatten({}).tree() == {}


def test_the_trained_part_is_replaced_and_the_rest_keeps_its_bits(joined):
  stored = flatten(TREE, TRAINED, joined)
  part = stored.trained()
  assert list(part.arrays()) == ['a/kernel', 'b']
  changed = stored.replace(jax.tree.map(lambda vector: vector + 1, part))
  assert sorted(same_bits(changed, stored)) == ['a/kernel', 'b']
  assert np.signbit(changed.tree()['a']['slope'])


def test_names_do_not_depend_on_how_arrays_are_stored(joined):
  state = Average(flatten(TREE, TRAINED, joined), flatten({}, None, joined)), jnp.int32(3)
  named = named_arrays(state)
  assert {name: array.shape for name, array in named.items()} == {
      '0/params/a/kernel': (2, 1, 3, 4), '0/params/a/slope': (), '0/params/b': (5,), '1': ()}
  assert same_bits(store_named(jax.tree.map(jnp.zeros_like, state), named), state) == []
  moments = optax.adam(0.1).init(state[0].params.trained())
  assert {name for name in named_arrays(moments) if 'mu' in name} == {'0/mu/a/kernel', '0/mu/b'}


def test_copies_outlive_the_donation_of_a_vector():
  """Evaluation and checkpoints read arrays while the next step overwrites the state."""
  stored = flatten(TREE)
  copies = stored.tree()
  jax.jit(lambda stored: jax.tree.map(lambda vector: vector * 0 - 1, stored),
          donate_argnums=0)(stored)
  assert same_bits(copies, TREE) == []


def test_gradients_reach_every_array():
  stored = flatten(TREE)
  scale = flatten(jax.tree.map(lambda array: jnp.arange(1.0, array.size + 1).reshape(array.shape),
                               TREE))

  def loss(stored):
    return sum(jnp.vdot(weight, array) for weight, array in zip(
        scale.arrays().values(), stored.arrays().values(), strict=True))

  assert same_bits(jax.grad(loss)(stored), scale) == []
  assert stored.vectors['trained kernels'][:3].tolist() == [0, 4, 8]  # [O, h, w, I], as cuDNN
  text = jax.jit(jax.grad(loss)).lower(stored).as_text()
  assert (text.count('stablehlo.concatenate'), text.count('stablehlo.pad')) == (1, 0)  # of 'others'


def test_an_optimiser_that_needs_shapes_sees_the_arrays(joined):
  """Muon orthogonalises matrices; the vectors would be updated as Adam does."""
  tree = {'matrix': jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32),
          'bias': jnp.ones(3)}
  muon = optax.contrib.muon(0.1)
  expected, state = muon.update(tree, muon.init(tree), tree)
  stored, wrapped = flatten(tree, joined=joined), by_array(muon)
  updates, moments = jax.jit(wrapped.update)(stored, wrapped.init(stored), stored)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
               updates.tree(), expected)
  names = [name.replace('matrix', '') for name in named_arrays(moments)]
  assert len(names) == len(named_arrays(state))

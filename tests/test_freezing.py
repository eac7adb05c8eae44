"""Frozen arrays keep their bits and cost nothing; the others train as without freezing."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from sr_jax import train
from sr_jax.errors import InputError
from sr_jax.experiment import inputs, phases
from sr_jax.models import RRDB, variable_shapes
from sr_jax.profiling import summary
from sr_jax.runs.metrics_log import read_metrics
from sr_jax.step import freezing
from sr_jax.step.flat import named_arrays
from sr_jax.step.parameter_table import parameter_table
from sr_jax.step.state import Average, begin_phase, variables
from tests.conftest import same_bits

SHAPES = variable_shapes(RRDB(8, 2, 4))


def trained(train_only='', freeze=''):
  flags = traverse_util.flatten_dict(freezing.select(SHAPES, train_only, freeze).params, sep='/')
  return sorted({name.split('/')[0] for name, trains in flags.items() if trains})


@pytest.mark.parametrize(('train_only', 'freeze', 'expected'), [
    ('body_[0-9]*', '', ['body_0', 'body_1']),
    ('body_*', '', ['body_0', 'body_1', 'body_end']),
    ('head, last', '', ['head', 'last']),
    ('', 'body_*,stages_*', ['head', 'last', 'refinement']),
    ('body_*', 'body_1,body_end', ['body_0']),
    ('body_0/DenseBlock_?/Conv_4/bias', '', ['body_0'])])
def test_patterns_match_arrays_by_name_or_by_the_start_of_it(train_only, freeze, expected):
  assert trained(train_only, freeze) == expected


@pytest.mark.parametrize(('train_only', 'freeze', 'message'), [
    ('boddy_0', '', r"config\.train_only: 'boddy_0' .*\bbody_0\b"),
    ('head', 'steges_0/Conv_0', r"config\.freeze: 'steges_0/Conv_0' .*\bstages_0/Conv_0\b"),
    ('zzzz', '', r"'zzzz' .*\bbody_0, body_1, body_end, head, last and 3 more"),
    ('', '*', r"config\.train_only='', config\.freeze='\*': every array is frozen"),
    ('head', 'head', 'nothing is left to train')])
def test_patterns_that_match_nothing_are_refused(train_only, freeze, message):
  with pytest.raises(InputError, match=message):
    freezing.select(SHAPES, train_only, freeze)


@pytest.fixture(scope='module')
def batch(picture):
  hr = jnp.asarray(np.stack([picture(16, 16, seed) for seed in range(4)]), jnp.float32) / 255
  return {'hr': hr, 'lr': hr[:, ::2, ::2]}


def step(config, batch, **changes):
  for key, value in changes.items():
    config[key] = value
  experiment = phases.build(config)
  phase = experiment.phases[-1]
  state = begin_phase(experiment.new_state(), phase.g_tx)
  # Negative zero: adding an update of zero would change its sign bit.
  arrays = state.g.params.arrays()
  g = state.g._replace(params=state.g.params.store(
      arrays | {'last/bias': jnp.full_like(arrays['last/bias'], -0.0)}))
  state = state._replace(g=g, ema=jax.tree.map(jnp.copy, Average(g.params, g.batch_stats)))
  after, metrics = jax.jit(phase.step)(state, batch, {})
  return experiment, state, after, metrics


@pytest.fixture
def short(config):
  """The config of ten steps of the generator alone, with weight decay."""
  config.discriminator.name, config.loss.adversarial.weight = 'none', 0.0
  config.warmup_steps, config.steps = 0, 10
  config.optimizer.g.weight_decay = 0.1
  return config


@pytest.mark.parametrize('loop', ['no', 'yes'])  # an array by itself, and joined to vectors
def test_frozen_arrays_keep_their_bits_and_have_no_optimiser_state(short, batch, loop):
  experiment, before, after, _ = step(short, batch, train_only='body_0', device_loop=loop)
  assert before.g.params.layout.joined == (loop == 'yes')
  trained = [name for name in named_arrays(before.g.params) if name.startswith('body_0/')]
  moved = set(trained) - {'body_0/Conv_0/bias', 'body_0/Conv_1/bias'}  # before BatchNorm
  assert set(same_bits(before.g.params, after.g.params)) == moved
  # The average of a frozen array is that array.
  assert set(same_bits(before.g.params, after.ema.params)) == moved
  # BatchNorm's statistics change only where its scale and bias are trainable.
  assert {name.split('/')[0] for name in same_bits(before.g.batch_stats,
                                                   after.g.batch_stats)} == {'body_0'}
  moments = [name for name in named_arrays(after.g.opt_state) if '/mu/' in name or '/nu/' in name]
  assert len(moments) == 2 * len(trained)
  assert all('/body_0/' in name for name in moments)
  assert 'frozen' in parameter_table(after.g.params.tree(), experiment.trainable)


def test_trainable_arrays_are_updated_as_without_freezing(short, batch):
  """This holds as long as no BatchNorm is frozen, because that would change its statistics."""
  *_, whole, all_metrics = step(short.copy_and_resolve_references(), batch)
  *_, part, metrics = step(short, batch, freeze='head,stages_*')
  part, whole = part.g.params.arrays(), whole.g.params.arrays()
  for name in part:
    if not name.startswith(('head/', 'stages_')):
      np.testing.assert_allclose(part[name], whole[name], rtol=1e-4, atol=1e-6)
  assert metrics['g/total'] == pytest.approx(float(all_metrics['g/total']), rel=1e-5)
  assert metrics['g/grad_norm'] < all_metrics['g/grad_norm']  # of trainable arrays only


def test_a_frozen_batchnorm_behaves_as_in_evaluation(short, batch):
  experiment = phases.build(short)
  generator, given = experiment.generator, variables(experiment.new_state().g)
  given['batch_stats'] = jax.tree.map(lambda array: array + 0.5, given['batch_stats'])
  plain = generator.apply(given, batch['lr'], train=False)

  def training(freeze):
    trainable = freezing.select(given, '', freeze)
    with freezing.freeze_norms(trainable):
      return generator.apply(given, batch['lr'], train=True, mutable=['batch_stats'])

  sr, stats = training('body_0,body_end_norm')
  np.testing.assert_allclose(sr, plain, atol=1e-6)
  assert same_bits(stats['batch_stats'], given['batch_stats']) == []
  sr, stats = training('body_0')
  assert np.abs(sr - plain).max() > 1e-3
  assert {name.split('/')[0] for name in same_bits(stats['batch_stats'],
                                                   given['batch_stats'])} == {'body_end_norm'}


def test_a_run_in_epochs_prints_what_is_frozen_and_keeps_it_frozen(short, tmp_path, capsys):
  short.epochs, short.train_only, short.log_every = 2, 'last', 1  # 5 images, batches of 4
  state = train.train(short, tmp_path)
  assert int(state.step) == 4
  assert [line['epoch'] for line in read_metrics(tmp_path)] == [0.5, 1.0, 1.5, 2.0]
  total, frozen = (sum(array.size for name, array in named_arrays(state.g.params).items()
                       if not name.startswith(skipped)) for skipped in (' ', 'last'))
  assert f'G {total:,} parameters ({frozen:,} frozen)\n' in capsys.readouterr().out
  table = summary.summarize(short)
  assert re.search(r'\| head/kernel .* frozen .*\n(.*\n)*\| last/kernel .* yes ', table)
  initial = phases.build(inputs.epochs_to_steps(short, 5)).new_state()
  assert {name.split('/')[0] for name in same_bits(state.g.params, initial.g.params)} == {'last'}
  short.freeze = 'last/bias'
  with pytest.raises(InputError, match="the run has freeze='', the config 'last/bias'"):
    train.train(short, tmp_path)


def test_no_gradient_is_computed_for_frozen_arrays(short, batch):
  def flops(**changes):
    config = short.copy_and_resolve_references()
    config.update(changes)
    experiment = phases.build(config)
    state = jax.eval_shape(experiment.new_state)
    return jax.jit(experiment.phases[-1].step).lower(state, batch, {}).cost_analysis()['flops']

  assert flops(train_only='last') < 0.8 * flops()


def test_the_parameter_table_counts_trainable_and_frozen_arrays():
  trainable = freezing.select(SHAPES, 'head', '')
  text = parameter_table(SHAPES['params'], trainable)
  head = [line for line in text.splitlines() if line.startswith('| head/kernel')]
  assert head[0].split()[3:] == ['(3,', '3,', '3,', '8)', '|', '216', '|', 'yes', '|']
  total = sum(leaf.size for leaf in jax.tree.leaves(SHAPES['params']))
  assert re.fullmatch(fr'Total: {total:,}.*\b224 trainable.*\b{total - 224:,} frozen.*',
                      text.splitlines()[-1])

"""Traces: operations are named by their scopes; a device is idle if no stream runs."""

import json

import jax
import jax.numpy as jnp
import pytest

from sr_jax.profiling import traces


def rows(*streams, device='/device:GPU:0', thread='Stream #{}(Compute)'):
  """Returns the events of a trace, from the (start, duration) of each stream's operations."""
  events = [{'ph': 'M', 'pid': 1, 'name': 'process_name', 'args': {'name': device}},
          {'ph': 'M', 'pid': 1, 'name': 'process_sort_index', 'args': {'sort_index': 1}}]
  for tid, spans in enumerate(streams):
    events.append({'ph': 'M', 'pid': 1, 'tid': tid, 'name': 'thread_name',
                   'args': {'name': thread.format(tid)}})
    events += [{'ph': 'X', 'pid': 1, 'tid': tid, 'name': 'k', 'ts': start, 'dur': duration}
               for start, duration in spans]
  return events


def test_a_device_is_idle_when_none_of_its_streams_runs():
  assert traces.idle_share(rows([(0, 10), (15, 5)])) == pytest.approx(5 / 20)
  assert traces.idle_share(rows([(15, 5), (0, 10)])) == pytest.approx(5 / 20)  # in any order
  assert traces.idle_share(rows([(0, 10), (15, 5)], [(8, 4)])) == pytest.approx(3 / 20)
  assert traces.idle_share(rows([(0, 20), (2, 3)])) == 0  # one span inside another
  assert traces.idle_share([*rows([(0, 10), (15, 5)]), {}]) == pytest.approx(5 / 20)


def test_threads_that_repeat_the_streams_do_not_count():
  events = rows([(0, 5), (15, 5)])
  events.append({'ph': 'M', 'pid': 1, 'tid': 9, 'name': 'thread_name',
                 'args': {'name': 'XLA Modules'}})
  events.append({'ph': 'X', 'pid': 1, 'tid': 9, 'name': 'jit_step', 'ts': 0, 'dur': 20})
  assert traces.idle_share(events) == pytest.approx(10 / 20)


def test_a_trace_without_a_device_has_no_idle_share():
  assert traces.idle_share(rows([(0, 5), (15, 5)], device='/host:CPU')) is None
  assert traces.idle_share([]) is None


def test_scopes_are_readable():
  program = """ENTRY %main {
  %fusion.3 = f32[3]{0} fusion(%a), kind=kLoop, metadata={op_name="jit(one_step)/jvp(vgg)/VGG/add"}
  %add.2 = f32[3]{0} add(%a, %a), metadata={op_name="jit(train_steps)/while/body/jvp(vgg)/VGG/add"}
  ROOT %dot.1 = f32[3]{0} dot(%a, %b), metadata={op_name="jit(f)/transpose(jvp(generator))/x/mul"}
  %a = f32[3]{0} parameter(0)
}"""
  assert traces.scopes(program) == {
      'fusion.3': 'vgg forward/VGG/add', 'add.2': 'vgg forward/VGG/add',
      'dot.1': 'generator backward/x/mul'}
  assert traces.count_operations(program) == 3  # parameters are not counted


def test_operations_are_named_in_a_trace(tmp_path):
  @jax.jit
  def step(x):
    with jax.named_scope('generator'):
      return jnp.sin(x @ x).sum()

  x = jnp.ones((64, 64))
  program = step.lower(x).compile()
  program(x)
  path = traces.record(tmp_path, lambda: jax.block_until_ready(program(x)))
  traces.name_operations(path, traces.scopes(program.as_text()))
  operations = [event for event in traces.read(path) if 'hlo_op' in event.get('args', {})]
  assert any(event['name'].startswith('generator/') for event in operations)
  assert list(tmp_path.glob('plugins/profile/*/*.xplane.pb'))  # where XProf looks
  assert json.dumps(operations)
  assert traces.count_operations(program.as_text()) >= 1

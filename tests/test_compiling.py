"""The compile cache, what a step is said to need, and what is said where there is no room."""

import os
import pathlib
import warnings

import jax
import jax.numpy as jnp
import pytest
from jax import monitoring

from sr_jax.errors import InputError
from sr_jax.step import compilation
from sr_jax.system import compile_cache, files
from sr_jax.train import out_of_memory


@pytest.fixture
def ours(monkeypatch, tmp_path):
  """The user's cache folder, in which nothing is yet; JAX's settings come back afterwards."""
  monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)  # put back afterwards
  names = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs',
           'jax_persistent_cache_min_entry_size_bytes')
  before = {name: getattr(jax.config, name) for name in names}
  monkeypatch.setenv('SR_JAX_CACHE', str(tmp_path / 'cache'))
  jax.config.update('jax_compilation_cache_dir', None)
  yield tmp_path / 'cache' / 'xla'
  for name, value in before.items():
    jax.config.update(name, value)
  _look_again()


def _look_again():
  """JAX opens its cache once a process."""
  jax.experimental.compilation_cache.compilation_cache.reset_cache()
  jax.clear_caches()


@jax.jit
def halved(x, y):
  return jnp.tanh(x) @ y / 2, y.sum()


def test_the_cache_is_on_in_the_users_folder(ours):
  compile_cache.use_cache()
  assert jax.config.jax_compilation_cache_dir == str(ours)
  assert jax.config.jax_persistent_cache_min_compile_time_secs == 0


def test_another_cache_is_left_alone_and_none_is_done_without(ours, tmp_path):
  jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'theirs'))
  compile_cache.use_cache()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'theirs')
  assert not ours.exists()
  jax.config.update('jax_compilation_cache_dir', None)
  ours.parent.mkdir()
  ours.write_text('a file where the folder should be')
  compile_cache.use_cache()
  assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize('processes', [2, None])
def test_several_processes_have_no_cache_of_their_own(ours, processes):
  compile_cache.use_cache(processes)
  assert jax.config.jax_compilation_cache_dir is None


def test_those_unused_for_longest_go(tmp_path):
  for age, name in enumerate(('new', 'middle', 'old')):
    (tmp_path / name).write_bytes(bytes(100))
    os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
  compile_cache.shrink(tmp_path, 300)
  assert len(os.listdir(tmp_path)) == 3
  os.utime(tmp_path / 'old', (1e9 + 1, 0))  # it was read
  compile_cache.shrink(tmp_path, 250)
  assert sorted(os.listdir(tmp_path)) == ['new', 'old']


def test_what_lies_deeper_counts_and_goes_too(tmp_path, monkeypatch):
  """XLA's tuning on a GPU; and another process that deletes at the same time is no fault."""
  (tmp_path / 'tuning').mkdir()
  (tmp_path / 'tuning' / 'fusion').write_bytes(bytes(100))
  compile_cache.shrink(tmp_path, 50)
  assert not list((tmp_path / 'tuning').iterdir())
  for name in 'ab':
    (tmp_path / name).write_bytes(bytes(100))
  unlink = os.unlink
  monkeypatch.setattr(os, 'unlink', lambda path: (unlink(path), unlink(path)))
  compile_cache.shrink(tmp_path, 0)
  assert os.listdir(tmp_path) == ['tuning']


def test_a_step_is_compiled_once_and_read_by_the_next_process(ours):
  compile_cache.use_cache()
  _look_again()
  x, y = jnp.ones((64, 32)), jnp.ones((32, 16))
  first = compilation.compile_step(halved, x, y)
  assert not first.read
  assert first.seconds >= first.xla_seconds > 0
  assert first.argument_bytes == x.nbytes + y.nbytes
  assert first.working_bytes >= 64 * 16 * 4
  events = []
  def listen(event, duration, **_):
    events.append(event)
  monitoring.register_event_duration_secs_listener(listen)
  halved(x, y)
  monitoring.unregister_event_duration_listener(listen)
  assert not [event for event in events if 'compile' in event]
  _look_again()
  again = compilation.compile_step(halved, x, y)
  assert again.read
  assert (again.argument_bytes, again.working_bytes) == (first.argument_bytes, first.working_bytes)
  assert 'read from the cache' in compilation.describe_compilation('gan', again)


def test_what_is_given_away_is_not_counted_twice(ours):
  state, step = jnp.ones((256, 256)), jax.jit(lambda state: state + 1, donate_argnums=0)
  compiled = compilation.compile_step(step, state)
  assert compiled.argument_bytes == state.nbytes
  assert compiled.working_bytes < state.nbytes


def test_a_damaged_entry_is_deleted_and_written_anew(ours):
  """A process that was killed while it wrote: JAX would warn for ever and never write it again."""
  compile_cache.use_cache()
  _look_again()
  x, y = jnp.ones((8, 8)), jnp.ones((8, 8))
  compilation.compile_step(halved, x, y)
  jax.jit(lambda x: x * 3)(x)
  entry, = ours.glob('jit_halved*-cache')
  others = {path.name for path in ours.iterdir()} - {entry.name}
  entry.write_bytes(entry.read_bytes()[:100])
  _look_again()
  with warnings.catch_warnings():
    warnings.simplefilter('default')
    assert not compilation.compile_step(halved, x, y).read
  assert {path.name for path in ours.iterdir()} == others | {entry.name}
  _look_again()
  assert compilation.compile_step(halved, x, y).read


def test_no_room_names_what_needs_less(config, monkeypatch):
  exhausted = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes')
  needs = compilation.Compiled(None, 1, 1, False, 3 << 20, 5 << 20)
  config.generator.name = 'rrdb'
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  with (pytest.raises(InputError, match=r'needs 8 MiB.*batch_size.*accumulate.*remat=True.*'
                      r'bfloat16.*data\.mode=mapped'),
        out_of_memory.explain_oom(config, 'bank', needs)):
    raise exhausted
  config.generator.remat, config.dtype = True, 'bfloat16'
  with (pytest.raises(InputError, match=r'accumulate, parts of a batch one after another$'),
        out_of_memory.explain_oom(config, 'stream', None)):
    raise exhausted
  with (pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'),
        out_of_memory.explain_oom(config, 'bank', needs)):
    raise jax.errors.JaxRuntimeError('INTERNAL: no cuDNN')


def test_files_cache_is_the_folder_of_the_session():
  """What the tests compile is shared with the processes that they start."""
  assert pathlib.Path(jax.config.jax_compilation_cache_dir) == files.cache_folder() / 'xla'

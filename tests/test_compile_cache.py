"""The compile cache in the user's folder: when it is used, its size limit, damaged entries."""

import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import monitoring

from sr_jax.step import compilation
from sr_jax.system import compile_cache, files


@pytest.fixture
def xla_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
  """The path of an empty cache of the user; JAX's own settings are restored afterwards."""
  monkeypatch.setattr(warnings, 'showwarning', warnings.showwarning)  # restored afterwards
  names = ('jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs',
           'jax_persistent_cache_min_entry_size_bytes')
  previous = {name: getattr(jax.config, name) for name in names}
  monkeypatch.setenv('SR_JAX_CACHE', str(tmp_path / 'cache'))
  jax.config.update('jax_compilation_cache_dir', None)
  yield tmp_path / 'cache' / 'xla'
  for name, value in previous.items():
    jax.config.update(name, value)
  _forget_programs()


def _forget_programs() -> None:
  """Makes JAX open its cache again, which it does once per process, and read programs from it."""
  jax.experimental.compilation_cache.compilation_cache.reset_cache()
  jax.clear_caches()


@jax.jit
def halved(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
  return jnp.tanh(x) @ y / 2, y.sum()


def test_the_cache_is_in_the_users_folder(xla_cache: pathlib.Path) -> None:
  compile_cache.use_cache()
  assert jax.config.jax_compilation_cache_dir == str(xla_cache)
  assert jax.config.jax_persistent_cache_min_compile_time_secs == 0


def test_another_cache_is_left_unchanged(xla_cache: pathlib.Path, tmp_path: pathlib.Path) -> None:
  jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'theirs'))
  compile_cache.use_cache()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'theirs')
  assert not xla_cache.exists()


def test_a_cache_that_cannot_be_created_is_not_used(xla_cache: pathlib.Path) -> None:
  xla_cache.parent.mkdir()
  xla_cache.write_text('a file in place of the folder')
  compile_cache.use_cache()
  assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize('processes', [2, None])
def test_several_processes_do_not_use_the_users_cache(
    xla_cache: pathlib.Path, processes: int | None) -> None:
  compile_cache.use_cache(processes)
  assert jax.config.jax_compilation_cache_dir is None


def test_the_least_recently_used_files_are_deleted(tmp_path: pathlib.Path) -> None:
  for age, name in enumerate(('new', 'middle', 'old')):
    (tmp_path / name).write_bytes(bytes(100))
    os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
  compile_cache.shrink(tmp_path, 300)
  assert len(os.listdir(tmp_path)) == 3
  os.utime(tmp_path / 'old', (1e9 + 1, 0))  # it was read
  compile_cache.shrink(tmp_path, 250)
  assert sorted(os.listdir(tmp_path)) == ['new', 'old']


def test_files_in_subfolders_are_deleted_too(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """On a GPU, XLA's autotuning has a subfolder. Another process may delete at the same time."""
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


def test_a_step_is_compiled_once_and_read_by_the_next_process(xla_cache: pathlib.Path) -> None:
  compile_cache.use_cache()
  _forget_programs()
  x, y = jnp.ones((64, 32)), jnp.ones((32, 16))
  first = compilation.compile_step(halved, x, y)
  assert not first.from_cache
  assert first.seconds >= first.xla_seconds > 0
  assert first.argument_bytes == x.nbytes + y.nbytes
  assert first.working_bytes >= 64 * 16 * 4
  events = []

  def listen(event: str, duration: float, **_: Any) -> None:
    events.append(event)

  monitoring.register_event_duration_secs_listener(listen)
  halved(x, y)
  monitoring.unregister_event_duration_listener(listen)
  assert not [event for event in events if 'compile' in event]
  _forget_programs()
  again = compilation.compile_step(halved, x, y)
  assert again.from_cache
  assert (again.argument_bytes, again.working_bytes) == (first.argument_bytes, first.working_bytes)
  assert 'cache' in compilation.describe_compilation('gan', again)
  assert 'cache' not in compilation.describe_compilation('gan', first)


def test_a_damaged_entry_is_deleted_and_written_again(xla_cache: pathlib.Path) -> None:
  """JAX would warn about an entry that a kill truncated at every start and never replace it."""
  compile_cache.use_cache()
  _forget_programs()
  x, y = jnp.ones((8, 8)), jnp.ones((8, 8))
  compilation.compile_step(halved, x, y)
  jax.jit(lambda x: x * 3)(x)
  entry, = xla_cache.glob('jit_halved*-cache')
  others = {path.name for path in xla_cache.iterdir()} - {entry.name}
  entry.write_bytes(entry.read_bytes()[:100])
  _forget_programs()
  with warnings.catch_warnings():
    warnings.simplefilter('default')
    assert not compilation.compile_step(halved, x, y).from_cache
  assert {path.name for path in xla_cache.iterdir()} == others | {entry.name}
  _forget_programs()
  assert compilation.compile_step(halved, x, y).from_cache


def test_the_tests_share_one_cache_with_processes_that_they_start() -> None:
  assert pathlib.Path(jax.config.jax_compilation_cache_dir) == files.cache_folder() / 'xla'

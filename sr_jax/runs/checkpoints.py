"""Checkpoints through Orbax: the latest, the best, and those worth keeping. Only this file
imports Orbax.

A checkpoint has two items, each a flat dict of arrays by name: `state`, everything that a
step needs, and `ema`, the averaged generator, which is all that evaluation reads.

Orbax gives a flipped byte of an array back as a wrong number, and no word with it: only those
that sr_jax/runs/checkpoint_index.py finds whole are shown to it.
"""

import contextlib
import errno
import math
import os
import threading
from collections.abc import Callable, Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp

from sr_jax.errors import InputError
from sr_jax.runs import orbax_patches
from sr_jax.runs.checkpoint_index import CheckpointIndex
from sr_jax.runs.orbax_patches import reason, silence_orbax
from sr_jax.step.state import TrainState
from sr_jax.system import files, memory

FOLDER, DAMAGED = 'checkpoints', 'damaged'
LATER = ('health/',)  # arrays that a run of an older version lacks: they start afresh


class Checkpoints:
  """The checkpoints of one run, in WORKDIR/checkpoints."""

  def __init__(self, workdir, best_metric: str = '', keep_steps: Sequence[int] = (),
               read_only: bool = False, begin: int | None = None,
               warn: Callable[[str], None] = print):
    """Opens them; reads none.

    Args:
      best_metric: the validation figure that `best` goes by; '' keeps none.
      keep_steps: steps never deleted, such as the end of the warm-up.
      read_only: for evaluation: nothing is made, cleaned or deleted.
      begin: the step that training goes on from (None: the latest). Damaged ones after it are
        moved to WORKDIR/damaged, out of the way of those to come.
      warn: is given a line for each one that is damaged and passed over, or that can not be
        saved; the latter often by another thread.

    Raises:
      OSError: opened for writing, and the folder can not be made.
      InputError: opened for writing without `begin`, and of those there none is whole.
    """
    self.folder = files.expand(workdir).absolute() / FOLDER
    self._kept = CheckpointIndex(self.folder, best_metric, warn)
    self._keep_steps, self._read_only, self._warn = tuple(keep_steps), read_only, warn
    self._orbax = self._saving = None
    self._coming = -math.inf  # the score of the one that is being saved
    if not read_only:
      self.folder.mkdir(parents=True, exist_ok=True)
      self._kept.clear()
      begin = self.latest() if begin is None else begin
      self._kept.move_damaged(math.inf if begin is None else begin, self.folder.parent / DAMAGED)

  @property
  def damaged(self) -> dict[int, str]:
    """{step: its first fault, in words} of those looked into."""
    return self._kept.damaged

  def latest(self) -> int | None:
    """The last whole one; None where there is none at all.

    Raises:
      InputError: there are some, and none is whole.
    """
    return self._kept.latest()

  def best(self) -> int | None:
    """The whole one with the best metric among those kept; None where none has it."""
    return self._kept.best()

  def is_best(self, metrics: dict[str, float]) -> bool:
    """Whether a checkpoint with these validation figures would be the best so far."""
    score = self._kept.score(metrics)
    try:
      return score > self._coming and score > self._kept.best_score()
    except InputError:  # the folder can not be read; saving to it will say so
      return True

  def steps(self) -> list[int]:
    """The whole ones, each looked into."""
    return [step for step in self._kept.steps() if self._kept.is_intact(step)]

  def named(self, step: str | int) -> int:
    """The step that 'latest', 'best' or a number names.

    Raises:
      InputError: there is none such, it is damaged, or it is no such word.
    """
    return self._kept.named(step)

  def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
    """Starts saving; the arrays are copied before it returns, the disk is written behind.

    Where that fails, `warn` is told as soon as it is known, those there stay as they are, and
    the next one is tried as if nothing had been. It appears in one move, whole: a kill at any
    instant leaves all of it or nothing.

    Args:
      state: this process's own (`parallel.local`).
    """
    step = int(state.step)
    self.wait()
    if jax.process_count() > 1:  # Orbax takes arrays there of all devices alone, or of none
      state = jax.tree.map(np.asarray, state)
    items = {'state': ocp.args.StandardSave(flat(state._replace(ema={}))),
             'ema': ocp.args.StandardSave(flat(state.ema))}
    if metrics and self._kept.best_metric:
      items['metrics'] = ocp.args.JsonSave(metrics)
    made = self.folder / f'{step}.saving'
    try:
      if step in self._kept.steps():
        return
      self.folder.mkdir(parents=True, exist_ok=True)
      self._kept.clear()
      self._opened().save(made, args=ocp.args.Composite(**items))
      folder = os.open(self.folder, os.O_RDONLY)
    except Exception as error:  # Orbax's are of all types
      self._failed(step, error)
      return
    self._coming = self._kept.score(metrics)
    self._saving = threading.Thread(target=self._finish, args=(step, made, folder),
                                    name='checkpoint')
    self._saving.start()

  def _finish(self, step, made, folder) -> None:
    """What is left to do once the arrays are copied; in a thread of its own."""
    try:
      self._opened().wait_until_finished()
      # TensorStore makes the folder of a file anew where it is gone, and what was in it is not.
      if not os.path.samestat(os.fstat(folder), self.folder.stat()):
        raise FileNotFoundError(errno.ENOENT, 'the folder was deleted meanwhile')
      self._kept.add(step, made, self._coming)
    except Exception as error:
      self._failed(step, error)
    else:
      self._kept.delete_old(self._keep_steps)
    finally:
      self._coming = -math.inf  # from here on it is there or it is not
      os.close(folder)
      memory.release_free_memory()

  def _failed(self, step: int, error: Exception) -> None:
    self._close_orbax()
    self._kept.clear()  # half of it would fill the disk
    self._warn(f'{self._kept.place(step)}: can not be saved ({reason(error)}); training goes on, '
               'and the next checkpoint is tried')

  def wait(self) -> None:
    """Until what is being saved is there, or has failed; `latest` tells which."""
    if self._saving:
      self._saving.join()
      self._saving = None

  def close(self) -> None:
    self.wait()
    self._close_orbax()
    if not self._read_only:
      self._kept.clear()  # once more: what fails may still be writing its last

  def give_up(self) -> None:
    """The folder is another run's: nothing in it is deleted any more."""
    self._read_only = True

  def restore(self, target: TrainState, step: int | None = None) -> TrainState:
    """The state of `step` (None: the latest), in the arrays' places of `target`.

    Raises:
      InputError: no such step, or it is damaged; or arrays of other names, shapes or types.
    """
    bare = target._replace(ema={})
    self.wait()
    step = self._kept.named(step)
    return _unflat(bare, self._read(step, 'state', flat(bare)))._replace(
        ema=_unflat(target.ema, self._read(step, 'ema', flat(target.ema))))

  def restore_generator(self, target: dict, step: int, raw: bool = False) -> dict:
    """The averaged generator's variables, or its `raw` ones; `target` gives names and shapes."""
    self.wait()
    step, wanted = self._kept.named(step), flat(target)
    if not raw:
      return _unflat(target, self._read(step, 'ema', wanted))
    stored = self._stored(step, 'state')
    self._compare(step, wanted, {name: stored.get(f'g/{name}') for name in wanted})
    found = self._restore(step, 'state', stored)  # an item is restored as a whole
    return _unflat(target, {name: found[f'g/{name}'] for name in wanted})

  def _opened(self) -> ocp.AsyncCheckpointer:
    if self._orbax is None:
      # Of several processes one has the folder (sr_jax/system/multihost.py): it waits for no other.
      me = jax.process_index()
      alone = {'multiprocessing_options': ocp.options.MultiprocessingOptions(
          primary_host=me, active_processes={me}, barrier_sync_key_prefix=FOLDER)
               } if jax.process_count() > 1 else {}
      silence_orbax()  # its first failure is said by several threads before we hear of it
      orbax_patches.patch_tensorstore()
      # Otherwise threads wait for ten minutes for a folder that could not be made: the
      # checkpoint's, which the one looks after, or an item's, the other.
      at_once = ocp.AsyncOptions(create_directories_asynchronously=False)
      self._orbax = ocp.AsyncCheckpointer(
          ocp.CompositeCheckpointHandler(
              composite_options=ocp.CompositeOptions(async_options=at_once, **alone),
              state=ocp.StandardCheckpointHandler(**alone),
              ema=ocp.StandardCheckpointHandler(**alone),
              metrics=ocp.JsonCheckpointHandler('metrics', **alone)),
          async_options=at_once, **alone)
    return self._orbax

  def _close_orbax(self) -> None:
    if self._orbax:
      with contextlib.suppress(Exception):  # what it has to say has been said
        self._orbax.close()
      self._orbax = None

  def _read(self, step: int, item: str, wanted: dict[str, jax.Array]) -> dict[str, jax.Array]:
    # Orbax casts a wrong dtype and names no array of a wrong shape: compare beforehand.
    stored = self._stored(step, item)
    fresh = {name: leaf for name, leaf in wanted.items()
             if name.startswith(LATER) and name not in stored}
    wanted = {name: leaf for name, leaf in wanted.items() if name not in fresh}
    self._compare(step, wanted, stored)
    return self._restore(step, item, wanted) | fresh

  def _stored(self, step: int, item: str) -> dict[str, jax.ShapeDtypeStruct]:
    with _readable(self._kept.place(step)):
      found = self._opened().metadata(self._kept.place(step)).item_metadata[item]
      return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
              for name, leaf in dict(found).items()}

  def _restore(self, step: int, item: str, wanted: dict) -> dict[str, jax.Array]:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype,
                                         sharding=getattr(leaf, 'sharding', None) or here)
              for name, leaf in wanted.items()}
    args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
    with _readable(self._kept.place(step)):
      return self._opened().restore(self._kept.place(step), args=args)[item]

  def _compare(self, step: int, wanted: dict, stored: dict) -> None:
    for name in sorted(wanted.keys() | stored.keys()):
      want, have = (_describe(tree.get(name)) for tree in (wanted, stored))
      if want != have:
        raise InputError(f'{self._kept.place(step)}: {name} is {have} in the checkpoint and '
                         f'{want} in the config: another architecture or optimiser')


def clear(workdir) -> None:
  """Deletes what a save that was cut short has left; it may be what fills the disk."""
  CheckpointIndex(files.expand(workdir) / FOLDER, '', print).clear()


def flat(tree) -> dict[str, jax.Array]:
  """Arrays by path, such as 'g/params/head/kernel'."""
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _unflat(like, arrays: dict[str, jax.Array]):
  return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in flat(like)])


def _describe(leaf) -> str:
  return 'absent' if leaf is None else f'{leaf.dtype}{list(leaf.shape)}'


@contextlib.contextmanager
def _readable(path):
  try:
    yield
  except Exception as error:  # Orbax's are of all types
    raise InputError(f'{path}: can not be read ({reason(error)})') from None


# What fails in Orbax is raised, and its lines and tracebacks besides would say it again. Once one
# array can not be written it no longer listens to the others, which end in tracebacks of their own.



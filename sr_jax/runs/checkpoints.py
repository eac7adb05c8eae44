"""Saves and restores checkpoints with Orbax; the only module that imports Orbax.

A checkpoint has two items, each a flat dict of arrays by name: `state`, everything that a training
step needs, and `ema`, the averaged generator, which is all that evaluation reads.

Orbax does not verify data: it restores a flipped byte of an array as a wrong number without an
error. Therefore Orbax only reads checkpoints that sr_jax/runs/checkpoint_index.py has found intact.
"""

import contextlib
import errno
import math
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from sr_jax.errors import InputError
from sr_jax.runs import orbax_patches
from sr_jax.runs.checkpoint_index import CheckpointIndex
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.orbax_patches import reason, silence_orbax
from sr_jax.step.flat import named_arrays, store_named
from sr_jax.step.state import TrainState
from sr_jax.system import files, memory

PyTree = Any


class Checkpoints:
  """The checkpoints of one run, in WORKDIR/checkpoints.

  Attributes:
    folder: WORKDIR/checkpoints.
    failure: why the last save that failed did so; '' if none has failed.
  """

  def __init__(self, workdir: os.PathLike | str, best_metric: str = '',
               keep_steps: Sequence[int] = (), read_only: bool = False, begin: int | None = None,
               warn: Callable[[str], None] = print, lower_is_better: bool | None = None) -> None:
    """Opens the checkpoints without reading any.

    Args:
      workdir: the folder of the run.
      best_metric: the validation metric that decides which checkpoint is best; '': none is.
      keep_steps: steps that are never deleted, such as the end of the warm-up.
      read_only: for evaluation: nothing is created, moved or deleted.
      begin: the step that training resumes from; None: the latest. Damaged checkpoints of later
        steps are moved to WORKDIR/damaged, because training will write to their places.
      warn: called with a line for each damaged checkpoint that is skipped and each one that cannot
        be saved; for the latter usually on another thread.
      lower_is_better: whether `best_metric` is better when it is lower; None: as LPIPS is.

    Raises:
      OSError: not `read_only`, and the folder cannot be created.
      InputError: not `read_only`, `begin` is None, and there are checkpoints of which none is
        intact.
    """
    run = RunFolder(files.expand(workdir))
    self.folder = run.checkpoints
    self._index = CheckpointIndex(self.folder, best_metric, warn, lower_is_better)
    self._keep_steps, self._read_only, self._warn = tuple(keep_steps), read_only, warn
    self._checkpointer = self._saving_thread = None
    self._saving_score = -math.inf  # score of the checkpoint that is being saved
    self._failed_saves, self.failure = 0, ''
    if not read_only:
      self.folder.mkdir(parents=True, exist_ok=True)
      self._index.remove_leftovers()
      begin = self.latest() if begin is None else begin
      self._index.move_damaged(math.inf if begin is None else begin, run.damaged)

  @property
  def damaged(self) -> dict[int, str]:
    """{step: description of its first fault} of the checkpoints checked so far."""
    return self._index.damaged

  def latest(self) -> int | None:
    """Returns the last intact step; None if there is no checkpoint at all.

    Raises:
      InputError: there are checkpoints, and none is intact.
    """
    return self._index.latest()

  def best(self) -> int | None:
    """Returns the intact step with the best metric; None if no checkpoint has the metric."""
    return self._index.best()

  def is_best(self, metrics: dict[str, float]) -> bool:
    """Returns whether a checkpoint with these validation metrics would be the best so far."""
    score = self._index.score(metrics)
    try:
      return score > self._saving_score and score > self._index.best_score()
    except InputError:  # the folder cannot be read; `save` will report it
      return True

  def steps(self) -> list[int]:
    """Returns the steps of all intact checkpoints; checks every one."""
    return [step for step in self._index.steps() if self._index.is_intact(step)]

  def resolve_step(self, step: str | int) -> int:
    """Returns the step that 'latest', 'best' or a number refers to.

    Raises:
      InputError: there is no such checkpoint, it is damaged, or `step` is another word.
    """
    return self._index.resolve_step(step)

  def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
    """Starts saving: copies the arrays before it returns and writes them on another thread.

    A checkpoint appears in one rename, so that a kill at any instant leaves all of it or nothing.
    If saving fails, `warn` is called as soon as the failure is known; existing checkpoints remain
    unchanged and the next save is tried as usual.

    Args:
      state: this process's copy (`sharding.local_copy`).
      metrics: the validation metrics at this step, if there are any.
    """
    step = int(state.step)
    self.wait()
    # Orbax wants arrays of all processes' devices, or NumPy arrays; vectors are split on the host.
    if jax.process_count() > 1 or state.g.params.layout.joined:
      state = jax.tree.map(np.array, state)
    items = {'state': ocp.args.StandardSave(named_arrays(state._replace(ema=()))),
             'ema': ocp.args.StandardSave(named_arrays(state.ema))}
    if metrics and self._index.best_metric:
      # JSON has no NaN or Inf.
      items['metrics'] = ocp.args.JsonSave({name: value for name, value in metrics.items()
                                            if math.isfinite(value)})
    # Threads of a failed save may still write to its folder, so the next save uses another one.
    attempt = f'.{self._failed_saves}' if self._failed_saves else ''
    unfinished = self.folder / f'{step}{attempt}.saving'
    try:
      if step in self._index.steps():
        return
      self.folder.mkdir(parents=True, exist_ok=True)
      self._index.remove_leftovers()
      self._open_orbax().save(unfinished.absolute(), args=ocp.args.Composite(**items))
      folder_handle = os.open(self.folder, os.O_RDONLY)
    except Exception as error:  # Orbax raises many types
      self._report_failed_save(step, error)
      return
    self._saving_score = self._index.score(metrics)
    self._saving_thread = threading.Thread(
        target=self._finish, args=(step, unfinished, folder_handle), name='checkpoint')
    self._saving_thread.start()

  def _finish(self, step: int, unfinished: pathlib.Path, folder_handle: int) -> None:
    """Completes a save after the arrays are copied; runs on its own thread.

    Args:
      folder_handle: file descriptor of `self.folder` when the save began; is closed.
    """
    try:
      self._open_orbax().wait_until_finished()
      # TensorStore recreates a folder that was deleted, without the files written before.
      if not os.path.samestat(os.fstat(folder_handle), self.folder.stat()):
        raise FileNotFoundError(errno.ENOENT, 'the folder was deleted by another process')
      self._index.add(step, unfinished, self._saving_score)
    except Exception as error:
      self._report_failed_save(step, error)
    else:
      self._index.delete_old(self._keep_steps)
    finally:
      self._saving_score = -math.inf  # the index knows now whether the checkpoint exists
      os.close(folder_handle)
      memory.release_free_memory()

  def _report_failed_save(self, step: int, error: Exception) -> None:
    self._failed_saves, self.failure = self._failed_saves + 1, reason(error)
    self._close_orbax()
    self._index.remove_leftovers()  # half a checkpoint would fill the disk
    self._warn(f'{self._index.path(step)}: cannot save ({self.failure}); training continues and '
               'tries the next checkpoint')

  def wait(self) -> None:
    """Waits until the current save has succeeded or failed; `latest` shows which."""
    if self._saving_thread:
      self._saving_thread.join()
      self._saving_thread = None

  def close(self) -> None:
    """Waits for the current save and releases Orbax's threads."""
    self.wait()
    self._close_orbax()
    if not self._read_only:
      self._index.remove_leftovers()  # again: a failed save may have been writing until now

  def give_up(self) -> None:
    """Makes the object read-only, because the folder belongs to another run now."""
    self._read_only = True

  def restore(self, target: TrainState, step: int | None = None) -> TrainState:
    """Restores the state of `step` (None: the latest).

    Args:
      target: gives the names, shapes, types and devices of the arrays.

    Raises:
      InputError: there is no such checkpoint, it is damaged, or its arrays have other names,
        shapes or types.
    """
    without_ema = target._replace(ema=())
    self.wait()
    step = self._index.resolve_step(step)
    return self._read(step, 'state', without_ema)._replace(
        ema=self._read(step, 'ema', target.ema))

  def restore_generator(self, target: dict, step: int, raw: bool = False) -> dict:
    """Restores the variables of the averaged generator, or with `raw` those that are trained.

    `target` gives their names, shapes and types; raises as `restore`.
    """
    self.wait()
    step = self._index.resolve_step(step)
    if not raw:
      return self._read(step, 'ema', target)
    wanted, stored = named_arrays(target), self._stored_shapes(step, 'state')
    self._refuse_different(step, wanted, {name: stored.get(f'g/{name}') for name in wanted})
    state = self._restore_item(step, 'state', stored)  # Orbax restores an item as a whole
    return store_named(target, {name: state[f'g/{name}'] for name in wanted})

  def _open_orbax(self) -> ocp.AsyncCheckpointer:
    if self._checkpointer is None:
      # Only one of several processes uses the folder (sr_jax/system/multihost.py), so it must not
      # wait for the others.
      index = jax.process_index()
      single_process = {'multiprocessing_options': ocp.options.MultiprocessingOptions(
          primary_host=index, active_processes={index},
          barrier_sync_key_prefix='checkpoints')} if jax.process_count() > 1 else {}
      silence_orbax()  # several threads print a failure before Orbax raises it
      orbax_patches.patch_tensorstore()
      # Otherwise threads wait for ten minutes for a folder that could not be created. The
      # checkpointer needs the option for the checkpoint's folder, the handler for the items'.
      async_options = ocp.AsyncOptions(create_directories_asynchronously=False)
      self._checkpointer = ocp.AsyncCheckpointer(
          ocp.CompositeCheckpointHandler(
              composite_options=ocp.CompositeOptions(async_options=async_options,
                                                     **single_process),
              state=ocp.StandardCheckpointHandler(**single_process),
              ema=ocp.StandardCheckpointHandler(**single_process),
              metrics=ocp.JsonCheckpointHandler('metrics', **single_process)),
          async_options=async_options, **single_process)
    return self._checkpointer

  def _close_orbax(self) -> None:
    if self._checkpointer:
      with contextlib.suppress(Exception):  # its errors have been reported already
        self._checkpointer.close()
      self._checkpointer = None

  def _read(self, step: int, item: str, target: PyTree) -> PyTree:
    wanted = named_arrays(target)
    # Orbax casts arrays of another dtype and does not name one of another shape: compare first.
    self._refuse_different(step, wanted, self._stored_shapes(step, item))
    return store_named(target, self._restore_item(step, item, wanted))

  def _stored_shapes(self, step: int, item: str) -> dict[str, jax.ShapeDtypeStruct]:
    path = self._index.path(step)
    with _named_read_errors(path):
      metadata = self._open_orbax().metadata(path.absolute()).item_metadata[item]
      return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
              for name, leaf in dict(metadata).items()}

  def _restore_item(self, step: int, item: str, wanted: Mapping[str, Any]) -> dict[str, jax.Array]:
    path, device = self._index.path(step), jax.local_devices()[0]
    default = jax.sharding.SingleDeviceSharding(device)
    target = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype,
                                         sharding=getattr(leaf, 'sharding', None) or default)
              for name, leaf in wanted.items()}
    args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
    with _named_read_errors(path):
      return self._open_orbax().restore(path.absolute(), args=args)[item]

  def _refuse_different(self, step: int, wanted: Mapping[str, Any],
                        stored: Mapping[str, Any]) -> None:
    for name in sorted(wanted.keys() | stored.keys()):
      expected, found = (_describe_array(arrays.get(name)) for arrays in (wanted, stored))
      if expected != found:
        raise InputError(f'{self._index.path(step)}: {name} is {found} in the checkpoint and '
                         f'{expected} in the config; the architecture or the optimiser differs')


def clear(workdir: os.PathLike | str) -> None:
  """Deletes what interrupted saves left behind, which may be what fills the disk."""
  run = RunFolder(files.expand(workdir))
  CheckpointIndex(run.checkpoints, '', print).remove_leftovers()


def _describe_array(array: Any) -> str:
  return 'absent' if array is None else f'{array.dtype}{list(array.shape)}'


@contextlib.contextmanager
def _named_read_errors(path: pathlib.Path) -> Iterator[None]:
  """Turns the errors of Orbax in the block into InputError."""
  try:
    yield
  except Exception as error:  # Orbax raises many types
    raise InputError(f'{path}: cannot read ({reason(error)})') from None

"""Checkpoints through Orbax: the latest, the best, and those worth keeping. Only this file
imports Orbax.

A checkpoint has two items, each a flat dict of arrays by name: `state`, everything that a
step needs, and `ema`, the averaged generator, which is all that evaluation reads.
"""

import contextlib
import math
from collections.abc import Sequence

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy as keep

from sr_jax import files
from sr_jax.errors import InputError
from sr_jax.state import TrainState

LOWER_IS_BETTER = ('lpips_alex', 'lpips_vgg')
FOLDER = 'checkpoints'


class Checkpoints:
  """The checkpoints of one run, in WORKDIR/checkpoints."""

  def __init__(self, workdir, best_metric: str = '', keep_steps: Sequence[int] = (),
               read_only: bool = False):
    """Opens them.

    Args:
      best_metric: the validation figure that `best` goes by; '' keeps none.
      keep_steps: steps never deleted, such as the end of the warm-up.
      read_only: for evaluation: nothing is made, cleaned or deleted.
    """
    self.folder = files.expand(workdir).absolute() / FOLDER
    self.best_metric = best_metric
    policies = [keep.LatestN(2), keep.CustomSteps(list(keep_steps))]
    if best_metric:
      policies.append(keep.BestN(n=1, get_metric_fn=self._merit,
                                 keep_checkpoints_without_metrics=False))
    with _quiet():
      self._manager = ocp.CheckpointManager(
          self.folder,
          item_handlers={name: ocp.StandardCheckpointHandler() for name in ('state', 'ema')},
          options=ocp.CheckpointManagerOptions(
              preservation_policy=keep.AnyPreservationPolicy(policies),
              best_fn=self._merit if best_metric else None,  # without it no metrics are written
              create=not read_only, read_only=read_only, cleanup_tmp_directories=not read_only))
    best = self.best()
    self._best_merit = -math.inf if best is None else self._merit(self._manager.metrics(best))

  def _merit(self, metrics) -> float:
    value = (metrics or {}).get(self.best_metric)
    if value is None or math.isnan(value):
      return -math.inf
    return -value if self.best_metric in LOWER_IS_BETTER else value

  def latest(self) -> int | None:
    return self._manager.latest_step()

  def best(self) -> int | None:
    """The step with the best metric among those kept; None where none has it."""
    merits = {step: self._merit(self._manager.metrics(step)) for step in self.steps()}
    merits = {step: merit for step, merit in merits.items() if merit > -math.inf}
    return max(merits, key=merits.get, default=None)

  def is_best(self, metrics: dict[str, float]) -> bool:
    """Whether a checkpoint with these validation figures would be the best so far."""
    return self._merit(metrics) > self._best_merit

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
    """Starts saving; the arrays are copied before it returns, the disk is written behind."""
    step = int(state.step)
    if step in self.steps():
      return
    self._best_merit = max(self._best_merit, self._merit(metrics))
    self._manager.save(step, metrics=metrics, args=ocp.args.Composite(
        state=ocp.args.StandardSave(flat(state._replace(ema={}))),
        ema=ocp.args.StandardSave(flat(state.ema))))

  def restore(self, target: TrainState, step: int | None = None) -> TrainState:
    """The state of `step` (None: the latest), in the arrays' places of `target`.

    Raises:
      InputError: no such step, or arrays of other names, shapes or types.
    """
    bare = target._replace(ema={})
    step = self._existing(step)
    return _unflat(bare, self._read(step, 'state', flat(bare)))._replace(
        ema=_unflat(target.ema, self._read(step, 'ema', flat(target.ema))))

  def restore_generator(self, target: dict, step: int, raw: bool = False) -> dict:
    """The averaged generator's variables, or its `raw` ones; `target` gives names and shapes."""
    step, wanted = self._existing(step), flat(target)
    if not raw:
      return _unflat(target, self._read(step, 'ema', wanted))
    stored = self._stored(step, 'state')
    self._compare(step, wanted, {name: stored.get(f'g/{name}') for name in wanted})
    found = self._restore(step, 'state', stored)  # an item is restored as a whole
    return _unflat(target, {name: found[f'g/{name}'] for name in wanted})

  def named(self, step: str | int) -> int:
    """The step that 'latest', 'best' or a number names.

    Raises:
      InputError: there is none such, or it is no such word.
    """
    if step == 'best':
      number = self.best()
      if number is None:
        raise InputError(f'{self.folder}: no checkpoint has a validation figure to be best by')
      return number
    if step != 'latest' and not str(step).isdecimal():
      raise InputError(f"--step={step}: expected a number, 'latest' or 'best'")
    return self._existing(None if step == 'latest' else int(step))

  def wait(self) -> None:
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()

  def _existing(self, step: int | None) -> int:
    steps = self.steps()
    if not steps:
      raise InputError(f'{self.folder}: no checkpoint in it')
    if step is None:
      return steps[-1]
    if step not in steps:
      raise InputError(f'{self.folder}: no checkpoint of step {step}, but of {steps}')
    return step

  def _read(self, step: int, item: str, wanted: dict[str, jax.Array]) -> dict[str, jax.Array]:
    # Orbax casts a wrong dtype and names no array of a wrong shape: compare beforehand.
    self._compare(step, wanted, self._stored(step, item))
    return self._restore(step, item, wanted)

  def _stored(self, step: int, item: str) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for name, leaf in dict(self._manager.item_metadata(step)[item]).items()}

  def _restore(self, step: int, item: str, wanted: dict) -> dict[str, jax.Array]:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype,
                                         sharding=getattr(leaf, 'sharding', None) or here)
              for name, leaf in wanted.items()}
    args = ocp.args.Composite(**{item: ocp.args.StandardRestore(target)})
    return self._manager.restore(step, args=args)[item]

  def _compare(self, step: int, wanted: dict, stored: dict) -> None:
    for name in sorted(wanted.keys() | stored.keys()):
      want, have = (_describe(tree.get(name)) for tree in (wanted, stored))
      if want != have:
        raise InputError(f'{self.folder / str(step)}: {name} is {have} in the checkpoint and '
                         f'{want} in the config: another architecture or optimiser')


def flat(tree) -> dict[str, jax.Array]:
  """Arrays by path, such as 'g/params/head/kernel'."""
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _unflat(like, arrays: dict[str, jax.Array]):
  return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in flat(like)])


def _describe(leaf) -> str:
  return 'absent' if leaf is None else f'{leaf.dtype}{list(leaf.shape)}'


@contextlib.contextmanager
def _quiet():
  """Without Orbax's warnings that what is opened for reading is open for reading."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)

"""What a run writes for people: metrics.jsonl, TensorBoard, pictures, a progress bar.

What can not be written, because the disk is full or a folder is gone, is said and tried again
with what comes next: no week of training ends for the sake of its log.
"""

import contextlib
import json
import math
import pathlib
import sys
import time

import numpy as np
import tqdm

from sr_jax import images
from sr_jax.errors import InputError, brief
from sr_jax.runs import event_file, lock
from sr_jax.runs.metrics_log import _forget_after
from sr_jax.system import files, memory

MAX_PENDING_BYTES = 2**24  # bytes that wait to be written; of what waits longer the oldest is lost


class Logs:
  """The logs of one run. On a resume, what a lost piece of the run had logged goes first."""

  def __init__(self, workdir, step: int, steps: int, images_per_step: int, epoch: int):
    """Opens them to go on from `step` of `steps`, of which an epoch has `epoch`."""
    self.workdir = pathlib.Path(workdir)
    self._rate, self._epoch = images_per_step, epoch
    jsonl = self.workdir / 'metrics.jsonl'
    _forget_after(jsonl, step)
    board = self.workdir / 'tensorboard'
    board.mkdir(exist_ok=True)
    self._jsonl, self._board = jsonl, event_file.new_file(board)
    self._waiting = {self._jsonl: [], self._board: []}  # what is to be added to them
    self._failing = set()
    self._waiting[self._board] = [event_file.opening(step + bool(step))]
    for path, pieces in self._waiting.items():  # what can't be written is told before it begins
      files.append(path, b''.join(pieces))
      pieces.clear()
    self._bar = tqdm.tqdm(total=steps, initial=step, disable=None, dynamic_ncols=True,
                          bar_format='{desc} {n_fmt}/{total_fmt} {bar:16} {elapsed}{postfix}')
    self._mark = (time.monotonic(), step)  # since the last scalars
    self._tick, self._pace, self._phase = self._mark, None, ''  # since the last move of the bar
    self._steps = steps

  def progress(self, step: int, phase: str, metrics: dict[str, float]) -> None:
    """Moves the bar to a step that is done, with its figures."""
    if self._bar.disable:
      return
    now, (then, before) = time.monotonic(), self._tick
    seconds = (now - then) / max(1, step - before)
    if phase != self._phase:  # its first step is mostly compilation
      self._pace, self._phase = None, phase
    else:
      self._pace = seconds if self._pace is None else 0.9 * self._pace + 0.1 * seconds
    self._tick = now, step
    speed = '' if self._pace is None else (
        f'{self._rate / self._pace:.1f} images/s, '
        f'{_clock((self._steps - step) * self._pace)} left, ')
    self._bar.set_description_str(phase, refresh=False)
    self._bar.set_postfix_str(speed + _look(metrics), refresh=False)
    with contextlib.suppress(OSError):  # a terminal that is gone
      self._bar.update(step - self._bar.n)

  def scalars(self, step: int, phase: str, metrics: dict[str, float]) -> None:
    """One line of metrics.jsonl and as many TensorBoard points; a line on a plain terminal."""
    now, (then, before) = time.monotonic(), self._mark
    self._mark = now, step
    speed = (step - before) * self._rate / max(now - then, 1e-9)
    metrics = metrics | {'images_per_second': speed}
    self._write(step, phase, metrics)
    if self._bar.disable:
      left = _clock((self._steps - step) * self._rate / speed if speed else 0)
      self.say(f'{phase} {step}/{self._steps}  {_look(metrics)}  {speed:.1f} images/s, '
               f'{left} left')

  def validation(self, step: int, phase: str, sets: dict[str, dict[str, float]],
                 terms: dict[str, float]) -> None:
    """Figures of 'valid' and of 'test', kept under `valid/` and `test/`; on every terminal.

    Args:
      terms: kept beside them, under their own names, and not shown.
    """
    self._write(step, phase, {f'{kind}/{name}': value for kind, figures in sets.items()
                              for name, value in figures.items()} | terms)
    for kind, figures in sets.items():
      self.say(f'{phase} {step}/{self._steps}  ' + (f'{kind}  ' if 'test' in sets else '') +
               '  '.join(f'{name} {value:.4f}' for name, value in figures.items()))

  @contextlib.contextmanager
  def pause(self):
    """What happens inside (validation, a checkpoint) is no training time."""
    begin = time.monotonic()
    yield
    seconds = time.monotonic() - begin
    self._mark, self._tick = ((then + seconds, step) for then, step in (self._mark, self._tick))

  def picture(self, step: int, name: str, image: np.ndarray) -> pathlib.Path:
    """Writes uint8 [H, W, 3] to samples/ and to TensorBoard."""
    path = self.workdir / 'samples' / f'{name}-{step:07d}.png'
    with self.trying(path.parent):
      images.write_image(path, image)
    self.show(step, name, image)
    return path

  def show(self, step: int, name: str, image: np.ndarray) -> None:
    """uint8 [H, W, 3] in TensorBoard."""
    self._add(self._board, [event_file.picture(step, name, image)])

  def page(self) -> None:
    """Writes report.html anew. Whatever is wrong with it, training goes on."""
    from sr_jax.report import page  # which reads what is written here
    try:
      with self.trying(self.workdir / 'report.html'):
        page.write([self.workdir])
    except lock.LockedByOther:
      raise
    except Exception as error:
      self.say(f'{self.workdir}/report.html: {type(error).__name__}: {brief(error, 200)}; training '
               'goes on')
    memory.release_free_memory()  # of the megabytes that a page is

  @contextlib.contextmanager
  def trying(self, path):
    """What happens inside writes to `path`; that it can not is said, and when it can again.

    Raises:
      Taken: the folder is another run's.
    """
    try:
      yield
    except lock.LockedByOther:
      raise
    except (OSError, InputError) as error:
      if path not in self._failing:
        reason = error if isinstance(error, InputError) else (
            f'{error.filename or path}: can not be written ({error.strerror or error})')
        self.say(f'{reason}; training goes on, and tries again')
      self._failing.add(path)
    else:
      if path in self._failing:
        self.say(f'{path}: is written again')
      self._failing.discard(path)

  def say(self, text: str) -> None:
    """Prints without tearing the bar; to nobody, where the terminal or its disk is gone."""
    with contextlib.suppress(OSError):
      self._bar.write(text, file=sys.stdout)
      sys.stdout.flush()

  def close(self) -> None:
    with contextlib.suppress(OSError):
      self._bar.close()
    for path in self._waiting:
      self._add(path, [])

  def _write(self, step, phase, metrics):
    # JSON has no NaN: a number that is none is written as null.
    line = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    epoch = round(step / self._epoch, 3)
    self._add(self._jsonl, [json.dumps({'step': step, 'epoch': epoch, 'phase': phase, **line})
                            .encode() + b'\n'])
    self._add(self._board, [event_file.scalars(step, {'epoch': epoch, **metrics})])

  def _add(self, path, pieces: list[bytes]):
    waiting = self._waiting[path]
    waiting += pieces
    while sum(map(len, waiting)) > MAX_PENDING_BYTES:
      del waiting[0]
    if waiting:
      with self.trying(path):
        files.append(path, b''.join(waiting))
        waiting.clear()


class NullLogs:
  """In place of `Logs` in a process that has none: takes what that is told, and keeps nothing."""

  def __getattr__(self, name):
    return lambda *_, **__: contextlib.nullcontext()


def _look(metrics: dict[str, float]) -> str:
  """The few figures that a person watches: G's terms, D's loss and its right answers."""
  parts = [f'{name[2:]} {value:.3g}' for name, value in metrics.items()
           if name.startswith('g/') and name not in ('g/total', 'g/grad_norm', 'g/ema_distance')]
  if 'd/total' in metrics:
    parts.append('d {d/total:.3g}, right {d/real:.0%} real {d/fake:.0%} fake'.format(**metrics))
  return ' '.join(parts)


def _clock(seconds: float) -> str:
  return tqdm.tqdm.format_interval(seconds)



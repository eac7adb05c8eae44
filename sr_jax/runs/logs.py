"""The logs of a run: metrics.jsonl, TensorBoard, sample images and a progress bar.

If a log cannot be written, because the disk is full or a folder is gone, a message says so and the
write is tried again with the next one: training never ends because of its logs.
"""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tqdm

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.runs import event_file, lock
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.metrics_log import forget_after
from sr_jax.system import files
from sr_jax.system.text import format_seconds

# Bytes that are kept while a file cannot be written; beyond that the oldest are dropped.
MAX_PENDING_BYTES = 2**24

# Metrics of G that are logged but not shown on the terminal.
HIDDEN_METRICS = ('g/total', 'g/grad_norm', 'g/ema_distance')


class Logs:
  """The logs of one run.

  Attributes:
    workdir: the folder of the run.
  """

  def __init__(self, workdir: os.PathLike | str, step: int, steps: int, images_per_step: int,
               epoch: int) -> None:
    """Opens the logs and removes what was logged after `step`, by a start that was killed.

    Args:
      workdir: the folder of the run.
      step: the step that training resumes from.
      steps: the number of steps in the run.
      images_per_step: the batch size.
      epoch: the number of steps in an epoch.

    Raises:
      OSError, InputError: the logs cannot be written.
    """
    self.workdir = pathlib.Path(workdir)
    self._run = RunFolder(self.workdir)
    self._images_per_step, self._steps, self._epoch = images_per_step, steps, epoch
    forget_after(self.workdir, step)
    self._run.tensorboard.mkdir(exist_ok=True)
    self._jsonl, self._events = self._run.metrics, event_file.new_file(self._run.tensorboard)
    self._pending = {self._jsonl: [], self._events: [event_file.opening(step + bool(step))]}
    self._failing = set()  # paths whose last write failed
    for path, pieces in self._pending.items():  # raises before training begins, not later
      files.append(path, b''.join(pieces))
      pieces.clear()
    self._bar = tqdm.tqdm(total=steps, initial=step, disable=None, dynamic_ncols=True,
                          bar_format='{desc} {n_fmt}/{total_fmt} {bar:16} {elapsed}{postfix}')
    # (time, step) of the last scalars and of the last update of the bar, less pauses.
    self._last_scalars = self._last_progress = (time.monotonic(), step)
    self._seconds_per_step, self._phase = None, ''  # of the bar: a moving average, and its phase

  def progress(self, step: int, phase: str, metrics: dict[str, float]) -> None:
    """Moves the progress bar to a finished step and shows its metrics."""
    if self._bar.disable:
      return
    now, (last_time, last_step) = time.monotonic(), self._last_progress
    seconds = (now - last_time) / max(1, step - last_step)
    if phase != self._phase:  # the first step of a phase is mostly compilation
      self._seconds_per_step, self._phase = None, phase
    elif self._seconds_per_step is None:
      self._seconds_per_step = seconds
    else:
      self._seconds_per_step = 0.9 * self._seconds_per_step + 0.1 * seconds
    self._last_progress = now, step
    speed = '' if self._seconds_per_step is None else (
        f'{self._images_per_step / self._seconds_per_step:.1f} images/s, '
        f'{format_seconds((self._steps - step) * self._seconds_per_step)} left, ')
    self._bar.set_description_str(phase, refresh=False)
    self._bar.set_postfix_str(speed + _describe_metrics(metrics), refresh=False)
    with contextlib.suppress(OSError):  # the terminal was closed
      self._bar.update(step - self._bar.n)

  def scalars(self, step: int, phase: str, metrics: dict[str, float]) -> None:
    """Logs the metrics of a step and the speed since the last call.

    They go to metrics.jsonl and TensorBoard, and to the terminal if it shows no progress bar.
    """
    now, (last_time, last_step) = time.monotonic(), self._last_scalars
    self._last_scalars = now, step
    speed = (step - last_step) * self._images_per_step / max(now - last_time, 1e-9)
    metrics = metrics | {'images_per_second': speed}
    self._write(step, phase, metrics)
    if self._bar.disable:
      left = format_seconds((self._steps - step) * self._images_per_step / speed if speed else 0)
      self.say(f'{phase} {step}/{self._steps}  {_describe_metrics(metrics)}  {speed:.1f} images/s, '
               f'{left} left')

  def validation(self, step: int, phase: str, sets: Mapping[str, Mapping[str, float]],
                 terms: Mapping[str, float]) -> None:
    """Logs validation metrics and prints them.

    Args:
      sets: {'valid': metrics, 'test': metrics}, logged as `valid/NAME` and `test/NAME`.
      terms: loss terms, logged under their own names and not printed.
    """
    self._write(step, phase, {f'{kind}/{name}': value for kind, metrics in sets.items()
                              for name, value in metrics.items()} | dict(terms))
    for kind, metrics in sets.items():
      self.say(f'{phase} {step}/{self._steps}  ' + (f'{kind}  ' if 'test' in sets else '') +
               '  '.join(f'{name} {value:.4f}' for name, value in metrics.items()))

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Excludes the time of the block (validation, a checkpoint) from the training speed."""
    begin = time.monotonic()
    yield
    seconds = time.monotonic() - begin
    self._last_scalars, self._last_progress = (
        (last_time + seconds, step) for last_time, step in (
            self._last_scalars, self._last_progress))

  def picture(self, step: int, name: str, image: np.ndarray) -> pathlib.Path:
    """Writes an image, uint8 [H, W, 3], to samples/ and to TensorBoard; returns its path."""
    path = self._run.samples / f'{name}-{step:07d}.png'
    with self.trying(path.parent):
      images.write_image(path, image)
    self.show(step, name, image)
    return path

  def show(self, step: int, name: str, image: np.ndarray) -> None:
    """Writes an image, uint8 [H, W, 3], to TensorBoard."""
    self._append(self._events, [event_file.image(step, name, image)])

  @contextlib.contextmanager
  def trying(self, path: pathlib.Path) -> Iterator[None]:
    """Suppresses and reports a failure of the block to write `path`.

    Consecutive failures are reported once, and so is the next success.

    Raises:
      LockedByOther: the folder belongs to another run.
    """
    try:
      yield
    except lock.LockedByOther:
      raise
    except (OSError, InputError) as error:
      if path not in self._failing:
        reason = error if isinstance(error, InputError) else (
            f'{error.filename or path}: cannot write ({error.strerror or error})')
        self.say(f'{reason}; training continues and tries again')
      self._failing.add(path)
    else:
      if path in self._failing:
        self.say(f'{path}: writing works again')
      self._failing.discard(path)

  def say(self, text: str) -> None:
    """Prints a line above the progress bar; does nothing if the terminal was closed."""
    with contextlib.suppress(OSError):
      self._bar.write(text, file=sys.stdout)
      sys.stdout.flush()

  def close(self) -> None:
    """Closes the progress bar and tries once more to write what is pending."""
    with contextlib.suppress(OSError):
      self._bar.close()
    for path in self._pending:
      self._append(path, [])

  def _write(self, step: int, phase: str, metrics: Mapping[str, float]) -> None:
    # JSON has no NaN or Inf; null stands for them.
    line = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    epoch = round(step / self._epoch, 3)
    self._append(self._jsonl, [json.dumps({'step': step, 'epoch': epoch, 'phase': phase, **line})
                               .encode() + b'\n'])
    self._append(self._events, [event_file.scalars(step, {'epoch': epoch, **metrics})])

  def _append(self, path: pathlib.Path, pieces: list[bytes]) -> None:
    """Appends pieces to a file, after those that could not be written before."""
    pending = self._pending[path]
    pending += pieces
    while sum(map(len, pending)) > MAX_PENDING_BYTES:
      del pending[0]
    if pending:
      with self.trying(path):
        files.append(path, b''.join(pending))
        pending.clear()


class NullLogs:
  """Replaces `Logs` in processes that log nothing: every method does nothing."""

  def __getattr__(self, name: str) -> Callable[..., Any]:
    return lambda *_, **__: contextlib.nullcontext()


def _describe_metrics(metrics: Mapping[str, float]) -> str:
  """Returns the metrics to watch: G's loss terms, D's loss and D's accuracy."""
  parts = [f'{name[2:]} {value:.3g}' for name, value in metrics.items()
           if name.startswith('g/') and name not in HIDDEN_METRICS]
  if 'd/total' in metrics:
    parts.append('d {d/total:.3g}, accuracy of D {d/real:.0%} real {d/fake:.0%} fake'
                 .format(**metrics))
  return ' '.join(parts)

"""The logs of a run: metrics.jsonl, TensorBoard, sample images, train.log and a progress bar.

If a log cannot be written, because the disk is full or a folder is gone, a message says so and the
write is tried again with the next one: training never ends because of its logs.
"""

import contextlib
import json
import math
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tqdm

from sr_jax import images
from sr_jax.errors import InputError
from sr_jax.runs import event_file, lock
from sr_jax.runs.folder import RunFolder
from sr_jax.runs.metrics_log import forget_after, read_baselines
from sr_jax.runs.pace import Pace
from sr_jax.runs.transcript import Transcript
from sr_jax.system import files
from sr_jax.system.text import format_metric, format_seconds

# Bytes that are kept while a file cannot be written; beyond that the oldest are dropped.
MAX_PENDING_BYTES = 2**24

# Metrics of G that are logged but not shown on the terminal.
HIDDEN_METRICS = ('g/total', 'g/grad_norm', 'g/ema_distance')
SET_TITLES = {'valid': 'validation', 'lr_images': 'images without HR'}
# Validation metrics that are printed without those of bicubic and of the start.
NOT_COMPARED = ('ssim_y', 'psnr_rgb', 'ssim_rgb', 'psnr_lr')


class Logs:
  """The logs of one run.

  Attributes:
    workdir: the folder of the run.
  """

  def __init__(self, workdir: os.PathLike | str, step: int, steps: int, images_per_step: int,
               epoch_at: Callable[[int], float], transcript: Transcript | None = None,
               baseline: str = 'bicubic') -> None:
    """Opens the logs and removes what was logged after `step`, by a start that was killed.

    Args:
      workdir: the folder of the run.
      step: the step that training resumes from.
      steps: the number of steps in the run.
      images_per_step: the batch size; `use_batches_of` changes it.
      epoch_at: returns the epochs that a number of steps is.
      transcript: the lines that were printed before; train.log begins with them.
      baseline: what lines call the phase 'bicubic', see `images.baseline_name`.

    Raises:
      OSError, InputError: the logs cannot be written.
    """
    self.workdir = pathlib.Path(workdir)
    self._run = RunFolder(self.workdir)
    self._images_per_step, self._steps, self._epoch_at = images_per_step, steps, epoch_at
    forget_after(self.workdir, step)
    self._run.tensorboard.mkdir(exist_ok=True)
    self._baselines, self._baseline = read_baselines(self.workdir), baseline
    self._transcript = transcript or Transcript()
    self._jsonl, self._events = self._run.metrics, event_file.new_file(self._run.tensorboard)
    self._pending = {self._jsonl: [], self._events: [event_file.opening(step + bool(step))],
                     self._run.train_log: [self._transcript.take()]}
    self._failing = set()  # paths whose last write failed
    self._mutex = threading.RLock()  # the thread that saves checkpoints writes lines too
    self.adopt_folder()
    for path, pieces in self._pending.items():  # raises before training begins, not later
      files.append(path, b''.join(pieces))
      pieces.clear()
    self._bar = tqdm.tqdm(total=steps, initial=step, disable=None, dynamic_ncols=True,
                          bar_format='{desc} {n_fmt}/{total_fmt} {bar:16} {elapsed}{postfix}')
    self._pace = Pace(step)
    self._last_progress = (time.monotonic(), step)  # of the bar, less pauses
    self._seconds_per_step, self._phase = None, ''  # of the bar: a moving average, and its phase

  def use_batches_of(self, images_per_step: int) -> None:
    """Takes note of the batch size of a phase, for the speed in images per second."""
    self._images_per_step = images_per_step

  def progress(self, step: int, phase: str, metrics: dict[str, float]) -> None:
    """Moves the progress bar to a finished step and shows its metrics."""
    self._pace.reached(step, phase)
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
        f'{format_seconds(self._pace.seconds_left(step, self._steps) or 0)} left, ')
    self._bar.set_description_str(phase, refresh=False)
    self._bar.set_postfix_str(speed + _describe_metrics(metrics), refresh=False)
    with contextlib.suppress(OSError):  # the terminal was closed
      self._bar.update(step - self._bar.n)

  def scalars(self, step: int, phase: str, metrics: dict[str, float]) -> None:
    """Logs the metrics of a step and the speed since the last call.

    They go to metrics.jsonl, TensorBoard and train.log, and to the terminal if it shows no progress
    bar.
    """
    speed = self._pace.steps_per_second(step) * self._images_per_step
    metrics = metrics | {'images_per_second': speed}
    self._write(step, phase, metrics)
    left = self._pace.seconds_left(step, self._steps)
    parts = [phase, f'step {step}/{self._steps} (epoch {self._epoch_at(step):.2f})',
             *_describe_step(metrics), f'{speed:.1f} images/s',
             '' if left is None else f'ETA {format_seconds(left)}']
    self._tell('  '.join(filter(None, parts)), on_terminal=self._bar.disable)

  def validation(self, step: int, phase: str, sets: Mapping[str, Mapping[str, float]],
                 terms: Mapping[str, float], names: Mapping[str, str] | None = None,
                 is_best: bool = False) -> None:
    """Logs validation metrics and prints them beside those of bicubic and of the start.

    Args:
      phase: the phase of training; 'bicubic' or 'start' for scores before the first step.
      sets: {'valid': metrics, 'clean': ..., 'test': ..., 'lr_images': ...}, logged as `valid/NAME`
        and so on.
      terms: loss terms, logged under their own names and not printed.
      names: {'valid': the set's name, 'clean': ..., 'test': ...}.
      is_best: whether these are the best scores so far.
    """
    metrics = {f'{kind}/{name}': value for kind, metrics in sets.items()
               for name, value in metrics.items()}
    self._write(step, phase, metrics | dict(terms))
    before_training = step == 0 and phase in ('bicubic', 'start')
    for kind, scores in sets.items():
      title = SET_TITLES.get(kind, kind) + (
          f' on {names[kind]}' if names and kind in names else '')
      parts = [f'{name} {format_metric(name, value)}' + self._compare(kind, name)
               for name, value in scores.items()]
      at = self._named(phase) if before_training else f'step {step}/{self._steps}'
      best = ['best so far'] if is_best and kind == 'valid' else []
      self.say('  '.join([title, at, *parts, *best]))
    if before_training:
      self._baselines[phase] = metrics

  def _compare(self, kind: str, name: str) -> str:
    """Returns the scores of bicubic and of the start, for the metrics that are mostly looked at."""
    if name in NOT_COMPARED:
      return ''
    metric = f'{kind}/{name}'
    found = [f'{self._named(phase)} {format_metric(name, scores[metric])}'
             for phase, scores in self._baselines.items() if scores.get(metric) is not None]
    return f' ({", ".join(found)})' if found else ''

  def _named(self, phase: str) -> str:
    return self._baseline if phase == 'bicubic' else phase

  @contextlib.contextmanager
  def pause(self, recurs: bool = True) -> Iterator[None]:
    """Excludes the time of the block (validation, a checkpoint) from the training speed.

    Args:
      recurs: of `Pace.pause`; False for compilation.
    """
    begin = time.monotonic()
    with self._pace.pause(recurs):
      yield
    last_time, step = self._last_progress
    self._last_progress = last_time + time.monotonic() - begin, step

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
      is_new = path not in self._failing
      self._failing.add(path)  # first, since the line goes to train.log, which may be what failed
      if is_new:
        reason = error if isinstance(error, InputError) else (
            f'{error.filename or path}: cannot write ({error.strerror or error})')
        self.say(f'{reason}; training continues and tries again')
    else:
      if path in self._failing:
        self._failing.discard(path)
        self.say(f'{path}: writing works again')

  def say(self, text: str) -> None:
    """Prints lines above the progress bar and appends them to train.log, with date and time."""
    self._tell(text, on_terminal=True)

  def note(self, text: str) -> None:
    """Appends lines to train.log alone."""
    self._tell(text, on_terminal=False)

  def _tell(self, text: str, on_terminal: bool) -> None:
    if on_terminal:
      self._transcript.say(text, lambda line: self._bar.write(line, file=sys.stdout))
    else:
      self._transcript.note(text)
    self._append(self._run.train_log, [self._transcript.take()])

  def adopt_folder(self) -> None:
    """Notes that the folder of this name is the run's own; it may have been created again."""
    self._folder_stat = self.workdir.stat()

  def _owns_folder(self) -> bool:
    try:
      return os.path.samestat(self._folder_stat, self.workdir.stat())
    except OSError:
      return False

  def close(self) -> None:
    """Closes the progress bar and tries once more to write what is pending."""
    with contextlib.suppress(OSError):
      self._bar.close()
    for path in self._pending:
      self._append(path, [])

  def _write(self, step: int, phase: str, metrics: Mapping[str, float]) -> None:
    # JSON has no NaN or Inf; null stands for them.
    line = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    epoch = round(self._epoch_at(step), 3)
    self._append(self._jsonl, [json.dumps({'step': step, 'epoch': epoch, 'phase': phase, **line})
                               .encode() + b'\n'])
    self._append(self._events, [event_file.scalars(step, {'epoch': epoch, **metrics})])

  def _append(self, path: pathlib.Path, pieces: list[bytes]) -> None:
    """Appends pieces to a file, after those that could not be written before."""
    with self._mutex:
      pending = self._pending[path]
      pending += pieces
      while sum(map(len, pending)) > MAX_PENDING_BYTES:
        del pending[0]
      # Another run may have begun in a folder of the same name; `OwnedFolder` finds that out.
      if pending and (path != self._run.train_log or self._owns_folder()):
        with self.trying(path):
          files.append(path, b''.join(pending))
          pending.clear()


class NullLogs:
  """Replaces `Logs` in processes that log nothing: every method does nothing."""

  def __getattr__(self, name: str) -> Callable[..., Any]:
    return lambda *_, **__: contextlib.nullcontext()


def _describe_step(metrics: Mapping[str, float]) -> list[str]:
  """Returns what train.log states of a step: learning rates, losses, accuracy of D."""
  parts = []
  rates = {name.partition('/')[2].upper(): f'{value:.2e}' for name, value in metrics.items()
           if name.startswith('learning_rate/')}
  if rates:
    parts.append('lr ' + (next(iter(rates.values())) if len(set(rates.values())) == 1 else
                          ' '.join(f'{net} {rate}' for net, rate in rates.items())))
  terms = ' '.join(_terms_of_g(metrics))
  if terms:
    total = f' G {metrics["g/total"]:.4g}' if 'g/total' in metrics else ''
    parts.append(f'loss{total} ({terms})')
  if 'd/total' in metrics:
    parts.append('D {d/total:.3g} (accuracy {d/real:.0%} real, {d/fake:.0%} fake)'
                 .format(**metrics))
  return parts


def _describe_metrics(metrics: Mapping[str, float]) -> str:
  """Returns what the progress bar shows: G's loss terms, D's loss and D's accuracy."""
  parts = _terms_of_g(metrics)
  if 'd/total' in metrics:
    parts.append('d {d/total:.3g}, accuracy of D {d/real:.0%} real {d/fake:.0%} fake'
                 .format(**metrics))
  return ' '.join(parts)


def _terms_of_g(metrics: Mapping[str, float]) -> list[str]:
  return [f'{name[2:]} {value:.3g}' for name, value in metrics.items()
          if name.startswith('g/') and name not in HIDDEN_METRICS]

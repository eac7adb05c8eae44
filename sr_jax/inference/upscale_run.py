"""Upscales the files of a plan with one network, and records what became of each."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from sr_jax.errors import InputError
from sr_jax.inference.upscale_file import Extras, upscale_file, upscale_samples
from sr_jax.inference.upscale_jobs import VIDEO, Job
from sr_jax.inference.upscale_options import Options
from sr_jax.inference.upscaler import Upscaler
from sr_jax.media import photos, video
from sr_jax.system.progress import Progress, progress


@dataclasses.dataclass
class Result:
  """What became of the files to upscale.

  Attributes:
    written: the results that were written.
    existed: the results that existed already and were left as they are.
    errors: a line for each input that could not be upscaled.
    notes: lines on files that are skipped, on what a result lacks of its input, and on options
      without effect.
  """

  written: list[pathlib.Path] = dataclasses.field(default_factory=list)
  existed: list[pathlib.Path] = dataclasses.field(default_factory=list)
  errors: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class UpscaleRun:
  """Upscales files with one network.

  Attributes:
    make_upscaler: returns the network for images of the (height, width) that are given.
    scale: of the network.
    identity: returns a text that differs between networks; a video that was interrupted is
      continued only with the same one.
    options: how files are upscaled.
    result: receives what becomes of each file.
    shown: whether progress and notes are printed.
  """

  make_upscaler: Callable[[Sequence[tuple[int, int]]], Upscaler]
  scale: int
  identity: Callable[[], str]
  options: Options
  result: Result
  shown: bool

  def run(self, jobs: Sequence[Job]) -> None:
    """Upscales the images, then the videos; a file that cannot be upscaled is an error line."""
    clips = [job for job in jobs if job.format == VIDEO]
    self._upscale_images([job for job in jobs if job.format != VIDEO])
    if clips:
      self._upscale_videos(clips)

  def _upscale_images(self, jobs: Sequence[Job]) -> None:
    sizes, readable = [], []
    for job in jobs:
      try:
        sizes.append(photos.size(job.source, self.options.max_pixels))
        readable.append(job)
      except InputError as error:
        self.result.errors.append(str(error))
    extras = self.options.extras(self.scale)
    rotated = [size[::-1] for size in sizes] if extras.ensemble else []
    upscaler, notes_before = self.make_upscaler(sizes + rotated), 0
    # Progress counts pixels: images differ in size, and the remaining time is computed from it.
    with progress('', sum(map(math.prod, sizes)), 'pixels', self.shown) as bar:
      done = 0
      for number, (job, size) in enumerate(zip(readable, sizes, strict=True), 1):
        bar.name = f'{job.source}' + f' ({number} of {len(sizes)})' * (len(sizes) > 1)
        bar.update(done)
        if not self._appeared(job):
          try:
            loss = upscale_file(upscaler, job.source, job.target,
                                self.options.of_file(job.format, extras),
                                lambda rows, width=size[1]: bar.update(bar.done + rows * width))
            self.result.written.append(job.target)
            for note in [loss] * bool(loss) + upscaler.notes[notes_before:]:
              self._note(f'{job.source}: {note}', bar)
          except InputError as error:
            self.result.errors.append(str(error))
        notes_before, done = len(upscaler.notes), done + math.prod(size)
        bar.update(done)

  def _upscale_videos(self, jobs: Sequence[Job]) -> None:
    extras = self.options.extras(self.scale)
    scale = extras.outscale or self.scale
    if scale % 1:
      self.result.errors += [f'{job.source}: --outscale {scale:g}: expected an integer for a video'
                             for job in jobs]
      return
    upscaler, crf = self.make_upscaler(()), self.options.crf
    options = video.VideoOptions(
        crf=video.VideoOptions.crf if crf is None else crf,  # 0 is a value, too
        max_pixels=self.options.max_pixels, identity=f'{self.identity()}, {extras}')
    for number, job in enumerate(jobs, 1):
      if not self._appeared(job):
        name = f'{job.source}' + f' ({number} of {len(jobs)})' * (len(jobs) > 1)
        with progress(name, 0, 'frames', self.shown) as bar:
          self._upscale_video(job, upscaler, int(scale), extras, options, bar)

  def _upscale_video(self, job: Job, upscaler: Upscaler, scale: int, extras: Extras,
                     options: video.VideoOptions, bar: Progress) -> None:
    def upscale(frames: np.ndarray) -> np.ndarray:
      if not any(extras):
        return upscaler(frames)
      return np.stack([upscale_samples(upscaler, frame, extras) for frame in frames])

    def show_progress(done: int, total: int) -> None:
      bar.total = total
      bar.update(done)

    notes_before = len(upscaler.notes)
    try:
      described = video.upscale_video(upscale, scale, job.source, job.target, options,
                                      show_progress)
      self.result.written.append(job.target)
      self._note(f'{job.target}: {described}', bar)
      for note in upscaler.notes[notes_before:]:
        self._note(f'{job.source}: {note}', bar)
    except (MemoryError, InputError) as error:
      self.result.errors.append(str(error) or f'{job.source}: the video does not fit in memory')

  def _appeared(self, job: Job) -> bool:
    """Returns whether the result exists by now: another call may write to the same folder."""
    existed = job.target.exists() and not self.options.overwrite
    self.result.existed.extend([job.target] * existed)
    return existed

  def _note(self, line: str, bar: Progress) -> None:
    self.result.notes.append(line)
    if self.shown:
      bar.write(line)

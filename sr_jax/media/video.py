"""Upscales videos frame by frame and keeps their timestamps and sound.

  sr-jax upscale video.mp4 --output out --weights realesr-animevideov3-x2

A video has thousands of frames, so the Compact networks are the practical choice:
realesr-animevideov3-x2, -x3 and -x4, or what --config compact trains. realesrgan-x4plus takes
fifty times as long (9 seconds instead of 0.2 for a frame of 160x120 on two CPU cores),
realesrgan-x4plus-anime fifteen times.

Segments of some seconds are encoded one after the other into a hidden folder beside the target,
each of them atomically. A call that was interrupted in any way resumes after the last segment; the
target is written at the end, atomically.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import av
import numpy as np

from sr_jax.errors import InputError, listed
from sr_jax.media import clip_losses, clips, remux, segment_folder, tags
from sr_jax.media.clip_frames import timed_frames
from sr_jax.media.interlacing import TimedFrame
from sr_jax.media.segments import SegmentFormat, check_size, encoder, segment_writer
from sr_jax.system import files

OUTPUT_SUFFIXES = tuple(remux.CONTAINERS)
Item = TypeVar('Item')
Upscale = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class VideoOptions:
  """How `upscale_video` reads and writes.

  Attributes:
    batch: frames per call of the network.
    crf: x264's quality, smaller is better; 18 is visually almost lossless.
    segment: frames per segment, the most that an interruption can lose.
    identity: anything else that the frames depend on, such as a hash of the weights. Segments are
      discarded if identity, video, scale, crf, segment or the version of PyAV has changed.
    max_pixels: limit for a frame of the source; None for no limit.
  """

  batch: int = 4
  crf: int = 18
  segment: int = 48
  identity: str = ''
  max_pixels: int | None = None


DEFAULT_OPTIONS = VideoOptions()


def upscale_video(upscale: Upscale, scale: int, source: os.PathLike | str,
                  target: os.PathLike | str, options: VideoOptions = DEFAULT_OPTIONS,
                  on_progress: Callable[[int, int], None] | None = None) -> str:
  """Writes a video of the upscaled frames of `source`, with their timestamps and the sound.

  The video is H.264 (4:2:0, 8 bits, BT.709 or BT.601 depending on the size), upright, progressive,
  opaque, with sides rounded up to even numbers. The sound is copied packet by packet, or else
  encoded to AAC. Chapters, titles and languages are kept. Subtitles and further video streams are
  dropped. The description names everything that was lost.

  Args:
    upscale: maps uint8 [batch, h, w, 3] to uint8 [batch, h * scale, w * scale, 3]; always called
      with the same shape.
    scale: integer factor.
    source: a file that PyAV can read.
    target: an .mp4 or .mkv file, which is replaced.
    options: batch size, quality, limits.
    on_progress: called with the number of finished frames and the number in the source's header,
      which may be slightly wrong, or 0.

  Returns:
    A description of the result.

  Raises:
    InputError: `source` is not a video or too large, a file cannot be written, or another process
      is writing the same target.
  """
  source, target = files.expand(source), files.expand(target)
  _check_target(source, target)
  with contextlib.ExitStack() as stack:
    video = stack.enter_context(clips.open_video(source, options.max_pixels))
    frames = timed_frames(video)
    first = next(frames, None)
    if first is None:
      raise InputError(f'{source}: contains no frame that can be decoded')
    source_format = clips.frame_format(video, first[1], options.max_pixels)
    height, width = (side * scale for side in source_format.upright_size)
    check_size(source, height, width)
    format = SegmentFormat(height, width, video.rate, options.crf, source_format)
    folder = files.hidden_beside(target, '.parts')
    segment_folder.lock(folder, target, stack)
    stack.enter_context(segment_folder.removed_if_empty(folder))
    changed = segment_folder.prepare(folder, target, _job(source, scale, options))

    def report(done: int) -> None:
      if on_progress:
        on_progress(done, video.total)

    segments, reused = _write_segments(upscale, itertools.chain([first], frames), folder, format,
                                       options, report)
    sound = _finish(segments, video, target)
    shutil.rmtree(folder, ignore_errors=True)
    count = sum(len(segment.times) for segment in segments)
    notes = [f'{count} frame{"s" * (count != 1)} of {width}x{height} (from '
             f'{source_format.upright_size[1]}x{source_format.upright_size[0]})', sound]
    if reused:
      notes.append(f'reused {reused} frames of an interrupted call')
    if changed:
      notes.append(f'started over (changed since the interrupted call: {changed})')
    return ', '.join([*notes, *clip_losses.of_frames(video), *clip_losses.of_streams(video),
                      *tags.lost(video, target), *_warnings(segments, video, format)])


def _check_target(source: pathlib.Path, target: pathlib.Path) -> None:
  """Raises an InputError if the target has an unsupported suffix or must not be replaced."""
  if target.suffix.lower() not in OUTPUT_SUFFIXES:
    raise InputError(f'{target}: expected a video with suffix {listed(OUTPUT_SUFFIXES)}')
  if len(os.fsencode(target.name)) > files.MAX_NAME_BYTES:
    raise InputError(f'{target}: the name is too long ({len(os.fsencode(target.name))} bytes, at '
                     f'most {files.MAX_NAME_BYTES}); rename the source')
  if target.is_dir() or (target.exists() and source.exists() and target.samefile(source)):
    raise InputError(f'{target}: cannot write (it is a folder or the source video)')


def _write_segments(upscale: Upscale, frames: Iterator[TimedFrame], folder: pathlib.Path,
                    format: SegmentFormat, options: VideoOptions,
                    report: Callable[[int], None]) -> tuple[list[remux.Segment], int]:
  """Writes the segments that are missing in `folder`.

  Returns:
    (all segments, the number of frames in those that existed).
  """
  segments, reused, done = [], 0, 0
  while (first := next(frames, None)) is not None:
    chunk = itertools.chain([first], itertools.islice(frames, options.segment - 1))
    path = folder / f'{len(segments):06d}.mp4'
    # The frames of existing segments are decoded as well, and dropped: unlike seeking this is exact
    # for any file, and it is cheap compared with the network.
    if path.exists():
      times = [time for time, _ in chunk]
      reused += len(times)
      report(done + len(times))
    else:
      batches = _batches(chunk, format.source, options.batch)
      with segment_writer(path, format) as write:
        times = _upscale_batches(upscale, batches, write,
                                 lambda count, done=done: report(done + count))
      del write  # frees the encoder, which holds tens of frames
    done += len(times)
    segments.append(remux.Segment(path, times))
  return segments, reused


def _upscale_batches(upscale: Upscale, batches: Iterator[tuple[list[int], np.ndarray]],
                     write: Callable[[np.ndarray], None], report: Callable[[int], None]
                     ) -> list[int]:
  """Writes the upscaled frames of all batches and returns their times."""
  times = []
  with contextlib.closing(_prefetch(batches)) as ready:
    for batch_times, lr in ready:
      for sr in upscale(lr)[:len(batch_times)]:
        write(sr)
      times += batch_times
      report(len(times))
  return times


def _batches(frames: Iterator[TimedFrame], format: clips.FrameFormat, size: int
             ) -> Iterator[tuple[list[int], np.ndarray]]:
  """Yields (times, uint8 [size, h, w, 3]); the last batch is padded with its last frame."""
  while chunk := list(itertools.islice(frames, size)):
    images = [clips.frame_to_rgb(frame, format) for _, frame in chunk]
    images += images[-1:] * (size - len(chunk))
    yield [time for time, _ in chunk], np.stack(images)


def _prefetch(items: Iterator[Item]) -> Iterator[Item]:
  """Yields the same items; a thread makes the next one while the current one is in use."""
  with ThreadPoolExecutor(1) as pool:
    upcoming = pool.submit(next, items, None)
    while (item := upcoming.result()) is not None:
      upcoming = pool.submit(next, items, None)
      yield item


def _job(source: pathlib.Path, scale: int, options: VideoOptions) -> dict[str, Any]:
  """Returns what segments must have in common to be joined."""
  stat = source.stat()
  return {'clip': [source.name, stat.st_size, stat.st_mtime_ns], 'network': options.identity,
          'scale': scale, 'crf': options.crf, 'segment': options.segment,
          'encoder': [encoder(), av.__version__, av.ffmpeg_version_info]}


def _finish(segments: Sequence[remux.Segment], video: clips.Video, target: pathlib.Path) -> str:
  """Joins the segments to `target`; returns a description of what became of the sound."""
  joined = segments[0].path.with_name(f'whole{target.suffix}')
  try:
    sound = remux.join(segments, video, joined)
    joined.replace(target)
  except remux.DamagedSegmentError as error:
    error.path.unlink(missing_ok=True)
    raise InputError(f'{error.path}: the segment was damaged and has been removed; repeat the call '
                     'to create it again') from None
  except OSError as error:
    raise InputError(f'{target}: cannot write ({error.strerror or error})') from None
  return sound


def _warnings(segments: Sequence[remux.Segment], video: clips.Video, format: SegmentFormat
              ) -> list[str]:
  """Describes padding and damage."""
  warnings = []
  if format.height % 2 or format.width % 2:
    warnings.append('padded to even sides by repeating the last row or column')
  if video.seen.damaged:
    warnings.append(f'{video.seen.damaged} damaged packets')
  times = sorted(time for segment in segments for time in segment.times)
  longest = max((after - before for before, after in itertools.pairwise(times)), default=0)
  seconds = (times[-1] - times[0] + longest) * video.time_base
  if not video.stream.duration:
    # The duration is that of all streams and may include the time before the first frame.
    seconds = max(seconds, (times[-1] + longest) * video.time_base, video.seen.end)
  if seconds < 0.98 * video.seconds - 0.2:
    warnings.append(f'ends after {float(seconds):.1f} of {float(video.seconds):.1f} s and may be '
                    'truncated')
  return warnings

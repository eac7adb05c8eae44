"""Makes clips larger: frames through a network, with the clip's own times and sound.

  python -m sr_jax.upscale clip.mp4 --output out --weights realesr-animevideov3-x2

A clip is thousands of pictures, so the Compact networks are the practical choice:
realesr-animevideov3-x2, -x3 and -x4, or what configs/compact.py trains. realesrgan-x4plus
takes fifty times as long (9 seconds against 0.2 for a frame of 160x120 on two CPU cores),
realesrgan-x4plus-anime fifteen times.

Segments of some seconds are encoded one after the other into a hidden folder beside the
target, each whole or not at all. A call that was stopped, by whatever, goes on after the
last of them; the target appears at the end, whole.
"""

import contextlib
import itertools
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np

from sr_jax.errors import InputError, listed
from sr_jax.media import clips, remux
from sr_jax.system import files

SUFFIXES = ('.mp4', '.mkv', '.mov', '.webm', '.avi', '.m4v', '.mpg', '.mpeg', '.mts', '.m2ts',
            '.wmv', '.flv', '.3gp', '.ogv')  # what is taken for a video
TARGETS = tuple(remux.CONTAINERS)


def upscale_video(upscale: Callable[[np.ndarray], np.ndarray], scale: int, source, target, *,
                  batch: int = 4, crf: int = 18, segment: int = 48, identity: str = '',
                  progress: Callable[[int, int], None] | None = None,
                  max_pixels: int | None = None) -> str:
  """Writes a clip of each frame of `source`, upscaled, at its time, with its sound.

  The video is H.264 (4:2:0, BT.709 or BT.601 as the size wants), upright, its sides rounded
  up to even ones. The sound is copied packet by packet, or else encoded to AAC. Subtitles,
  chapters and further videos are left out.

  Args:
    upscale: uint8 [batch, h, w, 3] to uint8 [batch, h * scale, w * scale, 3]; always of this
      one shape.
    source: a file that PyAV can read.
    target: an .mp4 or .mkv, which is replaced.
    crf: x264's quality, smaller is better; 18 is near to lossless to the eye.
    segment: frames that are lost at most when it is stopped.
    identity: what else the frames depend on. Segments of another identity, clip, scale,
      crf, segment or version of PyAV are thrown away.
    progress: called with the frames done and the number that the clip says it has, which
      may be a few off, or 0.
    max_pixels: of a frame of `source`.

  Returns:
    What was made, in words.

  Raises:
    InputError: `source` is no clip or too large, or something can't be written.
  """
  source, target = files.expand(source), files.expand(target)
  if target.suffix.lower() not in TARGETS:
    raise InputError(f'{target}: a clip is written as one of {listed(TARGETS)}')
  if target.is_dir() or (target.exists() and source.exists() and target.samefile(source)):
    raise InputError(f'{target}: can not be written (a folder, or the clip itself)')
  with clips.opened(source, max_pixels) as clip:
    incoming = clips.frames(clip)
    first = next(incoming, None)
    if first is None:
      raise InputError(f'{source}: holds no frame that can be decoded')
    look = clips.look_of(clip, first[1], max_pixels)
    height, width = (side * scale for side in look.shown)
    folder = target.with_name(f'.{target.name}.parts')
    anew = _prepare(folder, target, _job(source, scale, crf, segment, identity))

    parts, times, kept = [], [], 0

    def report(count: int) -> None:
      if progress:
        progress(sum(map(len, times)) + count, clip.total)

    while first is not None:
      chunk = itertools.chain([first], itertools.islice(incoming, segment - 1))
      parts.append(folder / f'{len(parts):06d}.mp4')
      # Frames of the segments that are there are decoded too, and dropped: that is exact with
      # any file, which seeking is not, and little beside the network.
      if parts[-1].exists():
        made = [time for time, _ in chunk]
        kept += len(made)
        report(len(made))
      else:
        with clips.segment(parts[-1], height, width, clip.rate, crf, look) as write:
          made = _upscaled(upscale, _batches(chunk, look, batch), write, report)
        del write  # the encoder, which holds tens of frames
      times.append(made)
      first = next(incoming, None)

    done = sum(map(len, times))
    sound = _finish(parts, times, clip, target)
    shutil.rmtree(folder, ignore_errors=True)
    words = [f'{done} frame{"s" * (done != 1)} of {width}x{height} (from {look.shown[1]}x'
             f'{look.shown[0]})', sound]
    if kept:
      words.append(f'{kept} of the frames were there')
    if anew:
      words.append(f'begun anew (what was there had another {anew})')
    if height % 2 or width % 2:
      words.append('made even by repeating the last row or column')
    left = {stream.type for stream in clip.container.streams
            if stream.type != 'audio' and stream.index != clip.stream.index}
    if left:
      words.append(f'left out: {listed(sorted(left))}')
    if clip.damaged:
      words.append(f'{clip.damaged} damaged packets')
    shown = sorted(itertools.chain(*times))
    longest = max((after - before for before, after in itertools.pairwise(shown)), default=0)
    lasted = (shown[-1] - shown[0] + longest) * clip.time_base
    if lasted < 0.98 * clip.seconds - 0.2:
      words.append(f'ends after {float(lasted):.1f} of {float(clip.seconds):.1f} s and may be cut '
                   'off')
    return ', '.join(words)


def _upscaled(upscale, batches, write, report) -> list[int]:
  """Writes the frames of all batches; their times."""
  times = []
  with contextlib.closing(_ahead(batches)) as ready:
    for moments, lr in ready:
      for sr in upscale(lr)[:len(moments)]:
        write(sr)
      times += moments
      report(len(times))
  return times


def _batches(frames, look: clips.FrameFormat, size: int) -> Iterator[tuple[list[int], np.ndarray]]:
  """(times, uint8 [size, h, w, 3]); the last is filled up by its last frame."""
  while chunk := list(itertools.islice(frames, size)):
    pictures = [clips.as_rgb(frame, look) for _, frame in chunk]
    pictures += pictures[-1:] * (size - len(chunk))
    yield [time for time, _ in chunk], np.stack(pictures)


def _ahead(items: Iterator) -> Iterator:
  """The same, each made by a thread while the one before is in use."""
  with ThreadPoolExecutor(1) as pool:
    coming = pool.submit(next, items, None)
    while (item := coming.result()) is not None:
      coming = pool.submit(next, items, None)
      yield item


def _job(source: pathlib.Path, scale: int, crf: int, segment: int, identity: str) -> dict:
  """What segments must agree in to be joined."""
  found = source.stat()
  return {'clip': [source.name, found.st_size, found.st_mtime_ns], 'network': identity,
          'scale': scale, 'crf': crf, 'segment': segment,
          'encoder': [clips.encoder(), av.__version__, av.ffmpeg_version_info]}


def _prepare(folder: pathlib.Path, target: pathlib.Path, job: dict) -> str:
  """Makes the folder of a job, or clears one; names what another job's was another of.

  Raises:
    InputError: it can't be written.
  """
  note = folder / 'job.json'
  try:
    old = json.loads(note.read_text(encoding='utf-8')) if note.exists() else {}
  except (OSError, ValueError):
    old = {}
  try:
    if old == job:
      for left in [*folder.glob('.*'), *folder.glob('whole.*')]:  # by a call that was killed
        left.unlink()
      return ''
    if folder.exists():
      shutil.rmtree(folder)
    folder.mkdir(parents=True)
    files.write_json(note, job)
  except OSError as error:
    raise InputError(f'{target}: can not be written ({error.strerror or error})') from None
  return listed([key for key in job if key in old and old[key] != job[key]])


def _finish(parts, times, clip: clips.Clip, target: pathlib.Path) -> str:
  """Joins the parts to `target`; what became of the sound."""
  whole = parts[0].with_name(f'whole{target.suffix}')
  try:
    sound = remux.join(parts, times, clip, whole)
    whole.replace(target)
  except remux.DamagedError as error:
    error.part.unlink(missing_ok=True)
    raise InputError(f'{error.part}: was damaged and is removed; the same call makes it '
                     'again') from None
  except OSError as error:
    raise InputError(f'{target}: can not be written ({error.strerror or error})') from None
  return sound

"""Encodes segments of H.264, which `remux.py` joins."""

import contextlib
import fractions
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from sr_jax.errors import InputError
from sr_jax.media import clips
from sr_jax.system import files

# PyAV's wheels include libx264; FFmpeg builds without it always have MPEG-4.
ENCODERS = ('libx264', 'mpeg4')
MAX_SIDE = {'libx264': 16384, 'mpeg4': 8191}  # pixels
MAX_AREA = 2**31 - 1  # of (8 * width + 1024) * (height + 128), in any of FFmpeg's encoders


def encoder() -> str:
  """Returns the first of ENCODERS that this PyAV has.

  Raises:
    InputError: it has none of them.
  """
  for name in ENCODERS:
    if name in av.codecs_available:
      return name
  raise InputError(f'the installed PyAV has no encoder of {" or ".join(ENCODERS)}: pip install av')


def check_size(source: os.PathLike | str, height: int, width: int) -> None:
  """Raises an InputError if the encoder does not support results of this size.

  Args:
    source: the video that is upscaled, for the message.
    height, width: of the result, before it is padded to even sides.
  """
  name, size = encoder(), f'{source}: the result of {width}x{height} pixels is too large'
  height, width = height + height % 2, width + width % 2
  if max(height, width) > MAX_SIDE.get(name, MAX_AREA):
    raise InputError(f'{size} for the video encoder {name}, whose sides are limited to '
                     f'{MAX_SIDE[name]} pixels; use a smaller scale or --outscale')
  if (8 * width + 1024) * (height + 128) > MAX_AREA:
    raise InputError(f'{size} for a video, which is limited to about {MAX_AREA // 8 // 10**6} '
                     'million pixels; use a smaller scale or --outscale')


class SegmentFormat(NamedTuple):
  """How a segment is encoded."""

  height: int
  width: int
  rate: fractions.Fraction  # frames per second
  crf: int  # x264's quality; smaller is better
  source: clips.FrameFormat  # of the frames that were upscaled


@contextlib.contextmanager
def segment_writer(path: os.PathLike | str, format: SegmentFormat
                   ) -> Iterator[Callable[[np.ndarray], None]]:
  """Yields write(uint8 [height, width, 3]); `path` exists only if the block succeeds.

  Every frame becomes one packet and no frame depends on a later one, so that segments can be joined
  packet by packet. Players support H.264 in 4:2:0, whose sides are even: the last row or column is
  repeated if a side is odd. The matrix is BT.709 for HD and BT.601 below; BT.2020 is kept.

  Raises:
    InputError: the file cannot be written.
  """
  height, width = format.height, format.width
  padding = ((0, height % 2), (0, width % 2), (0, 0))
  matrix, matrix_tag = (
      (Colorspace.BT2020, clips.BT2020) if format.source.matrix == clips.BT2020 else
      (Colorspace.ITU709, clips.BT709) if clips.is_hd(height, width) else
      (Colorspace.ITU601, clips.SMPTE170M))
  with (_atomic_output(path) as temporary,
        av.open(clips.local_path(temporary), 'w', format='mp4') as output):
    stream = _add_stream(output, format, matrix_tag)
    output.start_encoding()
    count = 0

    def write(image: np.ndarray) -> None:
      nonlocal count
      frame = av.VideoFrame.from_ndarray(np.pad(image, padding, 'edge'), 'rgb24').reformat(
          format='yuv420p', dst_colorspace=matrix, dst_color_range=ColorRange.MPEG,
          interpolation=clips.ACCURATE)
      frame.pts, frame.time_base = count, 1 / format.rate
      count += 1
      output.mux(stream.encode(frame))

    yield write
    output.mux(stream.encode(None))


def _add_stream(output: av.container.OutputContainer, format: SegmentFormat, matrix_tag: int
                ) -> av.VideoStream:
  """Adds the video stream of a segment."""
  name, source = encoder(), format.source
  # Without B-frames (bf) no frame depends on a later one.
  stream = output.add_stream(name, rate=format.rate, options=(
      {'crf': str(format.crf), 'bf': '0'} if name == 'libx264' else
      {'flags': '+qscale', 'global_quality': str(118 * max(1, format.crf // 6))}))
  stream.width, stream.height = (side + side % 2 for side in (format.width, format.height))
  context = stream.codec_context
  context.time_base = 1 / format.rate
  context.color_range, context.colorspace = ColorRange.MPEG, matrix_tag
  context.color_trc, context.color_primaries = (
      value if value > clips.UNKNOWN or value == clips.BT709 else clips.UNKNOWN
      for value in (source.transfer, source.primaries))
  if source.aspect:
    swapped = clips.swaps_axes(source.display_matrix)
    context.sample_aspect_ratio = 1 / source.aspect if swapped else source.aspect
  return stream


@contextlib.contextmanager
def _atomic_output(path: os.PathLike | str) -> Iterator[pathlib.Path]:
  """Yields the temporary file of `files.atomic_write`.

  Also converts FFmpeg's errors that are not an OSError to InputErrors.
  """
  with files.atomic_write(path) as temporary:
    try:
      yield temporary
    except av.FFmpegError as error:
      if isinstance(error, OSError):
        raise
      raise InputError(f'{path}: cannot write ({clips.error_text(error)})') from None

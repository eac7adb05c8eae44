"""Reads videos through PyAV: frames as RGB, with their timestamps.

`segments.py` encodes frames, `remux.py` joins segments, and `video.py` runs the network and resumes
an interrupted job.
"""

import contextlib
import dataclasses
import fractions
import os
import pathlib
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation

from sr_jax.errors import InputError

# Colour codes of ITU-T H.273, which frames and streams carry.
BT709, UNKNOWN, SMPTE170M, BT2020 = 1, 2, 6, 9
MATRICES = (BT709, 4, 5, SMPTE170M, 7, BT2020)
ACCURATE = (Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
            | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP)


@dataclasses.dataclass
class Video:
  """An open video file."""

  path: os.PathLike | str
  container: av.container.InputContainer
  stream: av.VideoStream
  rate: fractions.Fraction  # frames per second; the mean if it is variable
  total: int  # frames according to the header; 0 if unknown
  seconds: fractions.Fraction  # duration according to the header
  offset: int  # time at which the file's clock starts, in units of `time_base`
  damaged: int = 0  # packets that could not be decoded, so far

  @property
  def time_base(self) -> fractions.Fraction:
    """The unit of timestamps, in seconds."""
    return self.stream.time_base


@dataclasses.dataclass(frozen=True)
class FrameFormat:
  """Size, orientation and colour of a video's frames."""

  height: int  # as stored
  width: int
  display_matrix: tuple[int, ...] = ()  # rotation, as in the file; or empty
  aspect: fractions.Fraction | None = None  # of a pixel
  matrix: int = UNKNOWN
  transfer: int = UNKNOWN
  primaries: int = UNKNOWN

  @property
  def upright_size(self) -> tuple[int, int]:
    """(height, width) of the arrays of `frame_to_rgb`."""
    return ((self.width, self.height) if swaps_axes(self.display_matrix)
            else (self.height, self.width))


def error_text(error: Exception) -> str:
  """Returns FFmpeg's description of an error without its codes and log."""
  return getattr(error, 'strerror', None) or str(error)


def local_path(path: os.PathLike | str) -> str:
  """Returns a path that FFmpeg does not mistake for a URL, as it does 'a:b.mp4'."""
  return str(pathlib.Path(path).absolute())


def open_container(path: os.PathLike | str) -> av.container.InputContainer:
  """Opens a media file, which the caller closes.

  Raises:
    InputError: the file cannot be read.
  """
  try:
    # A file may be a playlist, whatever its name; the whitelist denies it network access.
    return av.open(local_path(path), options={'protocol_whitelist': 'file'})
  except (av.FFmpegError, OSError, ValueError) as error:
    raise InputError(f'{path}: cannot read as a video ({error_text(error)})') from None


@contextlib.contextmanager
def open_video(path: os.PathLike | str, max_pixels: int | None = None) -> Iterator[Video]:
  """Opens a video file and selects its first video stream that is not cover art.

  Raises:
    InputError: the file cannot be read, is not a video, or has frames of more than `max_pixels`.
  """
  with open_container(path) as container:
    if container.format.name.endswith('_pipe') or container.format.name == 'image2':
      raise InputError(f'{path}: an image, not a video')
    streams = [stream for stream in container.streams.video if stream.codec_context is not None
               and not stream.disposition & av.stream.Disposition.attached_pic]
    if not streams:
      raise InputError(f'{path}: contains no video stream that can be decoded')
    stream = streams[0]
    _check_frame_size(path, stream, max_pixels)
    stream.thread_type = 'AUTO'
    rate = stream.average_rate or stream.guessed_rate or fractions.Fraction(25)
    seconds = (stream.duration * stream.time_base if stream.duration
               else fractions.Fraction(container.duration or 0, av.time_base))
    # The clock of a transport stream starts anywhere; in other files a start time is intentional.
    start = container.start_time or 0 if 'mpeg' in container.format.name else 0
    yield Video(path, container, stream, rate.limit_denominator(65535),
                stream.frames or round(seconds * rate), seconds,
                round(fractions.Fraction(start, av.time_base) / stream.time_base))


def _check_frame_size(path: os.PathLike | str, frame: av.VideoStream | av.VideoFrame,
                      max_pixels: int | None) -> None:
  """Raises an InputError if a frame has more than `max_pixels`."""
  if max_pixels and frame.width * frame.height > max_pixels:
    raise InputError(f'{path}: frames of {frame.width}x{frame.height} have more than '
                     f'{max_pixels} pixels')


def frames(video: Video) -> Iterator[tuple[int, av.VideoFrame]]:
  """Yields (time, frame) of every frame that can be decoded.

  Times are in units of `video.time_base` and strictly increase. The time of a frame without
  timestamp follows from the frame rate.

  Raises:
    InputError: the file cannot be read.
  """
  step = max(1, round(1 / (video.rate * video.time_base)))
  shift, last = -video.offset, None
  try:
    for packet in video.container.demux(video.stream):
      try:
        decoded = packet.decode()
      except av.error.InvalidDataError:
        video.damaged += 1
        continue
      for frame in decoded:
        # An AVI file has no presentation times, only the order of the frames.
        time = frame.dts if video.container.format.name == 'avi' else frame.pts
        if time is None:
          time = -shift if last is None else last + step - shift
        shift = clock_shift(time, shift, last, step, video.time_base)
        last = time + shift if last is None else max(time + shift, last + 1)
        yield last, frame
  except av.error.InvalidDataError:  # a truncated file
    video.damaged += 1
  except av.FFmpegError as error:
    raise InputError(f'{video.path}: cannot read ({error_text(error)})') from None


def clock_shift(time: int, shift: int, last: int | None, step: int,
                time_base: fractions.Fraction) -> int:
  """Returns what to add to `time`, which handles clocks that restart.

  Clocks restart where recordings were concatenated.

  Args:
    time: timestamp in the file.
    shift: what was added to the previous timestamp.
    last: the previous timestamp after the addition, None for the first.
    step: duration of a frame or packet.
    time_base: unit of all times, in seconds.

  Returns:
    `shift`, unless `time + shift` is more than a second before `last`; then the shift by which
    the timestamp follows `last` by `step`.
  """
  restarted = last is not None and (time + shift - last) * time_base < -1
  return last + step - time if restarted else shift


def frame_format(video: Video, frame: av.VideoFrame, max_pixels: int | None = None) -> FrameFormat:
  """Returns the format of a video from its first frame.

  Raises:
    InputError: the frame has more than `max_pixels`, which the header did not show.
  """
  _check_frame_size(video.path, frame, max_pixels)
  matrix = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX, b'')
  return FrameFormat(frame.height, frame.width, tuple(np.frombuffer(matrix, np.int32).tolist()),
                     video.stream.sample_aspect_ratio, frame.colorspace, frame.color_trc,
                     frame.color_primaries)


def _colour_matrix(frame: av.VideoFrame) -> int:
  """Returns the tagged matrix, or what players assume without: BT.709 for HD, else BT.601."""
  if frame.colorspace in MATRICES:
    return frame.colorspace
  return BT709 if is_hd(frame.height, frame.width) else SMPTE170M


def is_hd(height: int, width: int) -> bool:
  """Returns whether frames are larger than those of standard-definition television."""
  return width >= 1280 or height > 576


def frame_to_rgb(frame: av.VideoFrame, format: FrameFormat) -> np.ndarray:
  """Converts a frame to upright uint8 [h, w, 3], resized to `format` if its size differs."""
  if not frame.format.is_rgb:
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith('yuvj')
    frame.colorspace = _colour_matrix(frame)
    frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG
  image = frame.to_ndarray(format='rgb24', width=format.width, height=format.height,
                           interpolation=ACCURATE)
  return apply_display_matrix(image, format.display_matrix)


def apply_display_matrix(image: np.ndarray, display_matrix: Sequence[int]) -> np.ndarray:
  """Rotates and flips [H, W, ...] by right angles as a display matrix specifies.

  The matrix (a b u  c d v  x y w) maps (x, y) to (ax + cy, bx + dy).
  """
  if not display_matrix:
    return image
  a, b, _, c, d = display_matrix[:5]
  if swaps_axes(display_matrix):
    image, a, d = image.swapaxes(0, 1), c, b
  return np.ascontiguousarray(image[::-1 if d < 0 else 1, ::-1 if a < 0 else 1])


def swaps_axes(display_matrix: Sequence[int]) -> bool:
  """Returns whether a display matrix turns rows into columns."""
  return bool(display_matrix) and abs(display_matrix[1]) > abs(display_matrix[0])



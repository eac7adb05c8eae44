"""Clips through PyAV: frames in as RGB, segments of H.264 out; `remux.py` joins those.

Knows no network and no resuming; `video.py` does.
"""

import contextlib
import dataclasses
import fractions
import pathlib
from collections.abc import Callable, Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from sr_jax.errors import InputError
from sr_jax.system import files

# libx264 is in PyAV's wheels; where FFmpeg was built without, MPEG-4 is always there.
ENCODERS = ('libx264', 'mpeg4')
# Numbers of ITU-T H.273, which frames and streams carry.
BT709, UNKNOWN, SMPTE170M, BT2020 = 1, 2, 6, 9
MATRICES = (BT709, 4, 5, SMPTE170M, 7, BT2020)
CAREFUL = (Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
           | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP)


@dataclasses.dataclass
class Clip:
  """An open clip; `total` is what it says of its number of frames, 0 if nothing."""

  path: object
  container: av.container.InputContainer
  stream: av.VideoStream
  rate: fractions.Fraction  # frames a second, the mean of a variable one
  total: int
  seconds: fractions.Fraction  # that it says it lasts
  offset: int  # of its clock, in units of the stream's time base
  damaged: int = 0  # packets that no frame could be made of

  @property
  def time_base(self) -> fractions.Fraction:
    return self.stream.time_base


@dataclasses.dataclass(frozen=True)
class FrameFormat:
  """How frames are to be shown; `turn` is a display matrix or empty, `aspect` a pixel's."""

  height: int
  width: int
  turn: tuple[int, ...] = ()
  aspect: fractions.Fraction | None = None
  matrix: int = UNKNOWN
  transfer: int = UNKNOWN
  primaries: int = UNKNOWN

  @property
  def shown(self) -> tuple[int, int]:
    """Height and width of what `as_rgb` gives."""
    return (self.width, self.height) if turned(self.turn) else (self.height, self.width)


def reason(error: Exception) -> str:
  """What FFmpeg says, without its numbers and its log."""
  return getattr(error, 'strerror', None) or str(error)


def address(path) -> str:
  """What FFmpeg takes for a file, and never, as it does 'a:b.mp4', for a protocol."""
  return str(pathlib.Path(path).absolute())


def read(path) -> av.container.InputContainer:
  """The file at `path`, which is to be closed.

  Raises:
    InputError: it can't be read.
  """
  try:
    # What calls itself a clip but is a playlist gets nothing from the network.
    return av.open(address(path), options={'protocol_whitelist': 'file'})
  except (av.FFmpegError, OSError, ValueError) as error:
    raise InputError(f'{path}: no video that can be read ({reason(error)})') from None


@contextlib.contextmanager
def opened(path, max_pixels: int | None = None) -> Iterator[Clip]:
  """The clip at `path`; its first video stream that is not a cover.

  Raises:
    InputError: no clip, none that can be read, or frames of more than `max_pixels`.
  """
  with read(path) as container:
    if container.format.name.endswith('_pipe') or container.format.name == 'image2':
      raise InputError(f'{path}: a picture, not a clip')
    streams = [stream for stream in container.streams.video if stream.codec_context is not None
               and not stream.disposition & av.stream.Disposition.attached_pic]
    if not streams:
      raise InputError(f'{path}: holds no video that can be decoded')
    stream = streams[0]
    _check_size(path, stream, max_pixels)
    stream.thread_type = 'AUTO'
    rate = stream.average_rate or stream.guessed_rate or fractions.Fraction(25)
    seconds = (stream.duration * stream.time_base if stream.duration
               else fractions.Fraction(container.duration or 0, av.time_base))
    # The clock of a transport stream starts anywhere, that of a file says something.
    start = container.start_time or 0 if 'mpeg' in container.format.name else 0
    yield Clip(path, container, stream, rate.limit_denominator(65535),
               stream.frames or round(seconds * rate), seconds,
               round(fractions.Fraction(start, av.time_base) / stream.time_base))


def _check_size(path, picture, max_pixels: int | None) -> None:
  if max_pixels and picture.width * picture.height > max_pixels:
    raise InputError(f'{path}: frames of {picture.width}x{picture.height} have more than '
                     f'{max_pixels} pixels')


def frames(clip: Clip) -> Iterator[tuple[int, av.VideoFrame]]:
  """Every frame that can be decoded, once, with its time in units of `clip.time_base`.

  Times rise. A frame without one follows by the frame rate.

  Raises:
    InputError: it can't be read.
  """
  step = max(1, round(1 / (clip.rate * clip.time_base)))
  shift, last = -clip.offset, None
  try:
    for packet in clip.container.demux(clip.stream):
      try:
        decoded = packet.decode()
      except av.error.InvalidDataError:
        clip.damaged += 1
        continue
      for frame in decoded:
        # An AVI does not tell when frames are shown, only their order in the file.
        time = frame.dts if clip.container.format.name == 'avi' else frame.pts
        if time is None:
          time = -shift if last is None else last + step - shift
        shift = set_back(time, shift, last, step, clip.time_base)
        last = time + shift if last is None else max(time + shift, last + 1)
        yield last, frame
  except av.error.InvalidDataError:  # broken off
    clip.damaged += 1
  except av.FFmpegError as error:
    raise InputError(f'{clip.path}: can not be read ({reason(error)})') from None


def set_back(time: int, shift: int, last: int | None, step: int,
             time_base: fractions.Fraction) -> int:
  """`shift`, or where time + shift is a second before `last` what makes it follow by `step`.

  Clocks are set back where recordings were put end to end.
  """
  back = last is not None and (time + shift - last) * time_base < -1
  return last + step - time if back else shift


def look_of(clip: Clip, frame: av.VideoFrame, max_pixels: int | None = None) -> FrameFormat:
  """Of a clip, by its first frame.

  Raises:
    InputError: it has more than `max_pixels`, which the header did not tell.
  """
  _check_size(clip.path, frame, max_pixels)
  turn = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX, b'')
  return FrameFormat(frame.height, frame.width, tuple(np.frombuffer(turn, np.int32).tolist()),
              clip.stream.sample_aspect_ratio, frame.colorspace, frame.color_trc,
              frame.color_primaries)


def _matrix(frame: av.VideoFrame) -> int:
  """As tagged; else as players guess: BT.709 is of pictures larger than television was."""
  if frame.colorspace in MATRICES:
    return frame.colorspace
  return BT709 if frame.width >= 1280 or frame.height > 576 else SMPTE170M


def as_rgb(frame: av.VideoFrame, look: FrameFormat) -> np.ndarray:
  """uint8 [h, w, 3], upright. A frame of another size than the first is resized to it."""
  if not frame.format.is_rgb:
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith('yuvj')
    frame.colorspace = _matrix(frame)
    frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG
  return upright(frame.to_ndarray(format='rgb24', width=look.width, height=look.height,
                                  interpolation=CAREFUL), look.turn)


def upright(picture: np.ndarray, turn: Sequence[int]) -> np.ndarray:
  """[H, W, ...] as the display matrix (a b u  c d v  x y w) shows it, by right angles.

  It takes (x, y) to (ax + cy, bx + dy).
  """
  if not turn:
    return picture
  a, b, _, c, d = turn[:5]
  if turned(turn):
    picture, a, d = picture.swapaxes(0, 1), c, b
  return np.ascontiguousarray(picture[::-1 if d < 0 else 1, ::-1 if a < 0 else 1])


def turned(turn: Sequence[int]) -> bool:
  """Whether rows become columns."""
  return bool(turn) and abs(turn[1]) > abs(turn[0])


def encoder() -> str:
  """The first of ENCODERS that this PyAV has.

  Raises:
    InputError: it has none.
  """
  for name in ENCODERS:
    if name in av.codecs_available:
      return name
  raise InputError(f'the installed PyAV has no encoder of {" or ".join(ENCODERS)}: pip install av')


@contextlib.contextmanager
def segment(path, height: int, width: int, rate: fractions.Fraction, crf: int, look: FrameFormat
            ) -> Iterator[Callable[[np.ndarray], None]]:
  """Yields write(uint8 [height, width, 3]); afterwards `path` is a segment, or isn't there.

  Each frame is a packet and no frame waits for a later one, so that segments can be joined
  by their packets. H.264 in what players play, 4:2:0, has even sides: the last row or
  column is repeated where one is odd. The matrix is BT.709 for what is larger than
  television was, else BT.601; BT.2020 stays.

  Raises:
    InputError: it can't be written.
  """
  odd = ((0, height % 2), (0, width % 2), (0, 0))
  high, name = width >= 1280 or height > 576, encoder()
  matrix, tag = ((Colorspace.BT2020, BT2020) if look.matrix == BT2020 else
                 (Colorspace.ITU709, BT709) if high else (Colorspace.ITU601, SMPTE170M))
  with atomic_output(path) as temporary, av.open(address(temporary), 'w', format='mp4') as output:
    stream = output.add_stream(name, rate=rate, options=(
        {'crf': str(crf), 'bf': '0'} if name == 'libx264' else
        {'flags': '+qscale', 'global_quality': str(118 * max(1, crf // 6))}))
    stream.width, stream.height = width + width % 2, height + height % 2
    context = stream.codec_context
    context.time_base = 1 / rate
    context.color_range, context.colorspace = ColorRange.MPEG, tag
    context.color_trc, context.color_primaries = (
        value if value > UNKNOWN or value == BT709 else UNKNOWN
        for value in (look.transfer, look.primaries))
    if look.aspect:
      context.sample_aspect_ratio = 1 / look.aspect if turned(look.turn) else look.aspect
    output.start_encoding()
    count = 0

    def write(picture: np.ndarray) -> None:
      nonlocal count
      frame = av.VideoFrame.from_ndarray(np.pad(picture, odd, 'edge'), 'rgb24').reformat(
          format='yuv420p', dst_colorspace=matrix, dst_color_range=ColorRange.MPEG,
          interpolation=CAREFUL)
      frame.pts, frame.time_base = count, 1 / rate
      count += 1
      output.mux(stream.encode(frame))

    yield write
    output.mux(stream.encode(None))


@contextlib.contextmanager
def atomic_output(path) -> Iterator[object]:
  """files.replacing, for those of FFmpeg's errors too that are no OSError."""
  with files.atomic_write(path) as temporary:
    try:
      yield temporary
    except av.FFmpegError as error:
      if isinstance(error, OSError):
        raise
      raise InputError(f'{path}: can not be written ({reason(error)})') from None

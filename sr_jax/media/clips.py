"""Opens videos through PyAV and converts their frames to RGB.

`clip_frames.py` decodes and deinterlaces, `segments.py` encodes frames, `remux.py` joins segments,
and `video.py` runs the network and resumes an interrupted job.
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

from sr_jax import images
from sr_jax.errors import InputError

# Suffixes of files that are treated as videos: containers and raw streams that FFmpeg reads.
SUFFIXES = ('.mp4', '.m4v', '.mov', '.qt', '.3gp', '.3g2', '.f4v', '.mkv', '.webm', '.avi', '.divx',
            '.mpg', '.mpeg', '.mpe', '.m1v', '.m2v', '.m2p', '.vob', '.ts', '.m2t', '.mts', '.m2ts',
            '.trp', '.tod', '.wmv', '.asf', '.flv', '.ogv', '.ogm', '.mxf', '.dv', '.rm', '.rmvb',
            '.nut', '.y4m', '.ivf', '.h264', '.264', '.h265', '.hevc', '.265', '.gxf', '.wtv',
            '.mjpeg', '.mjpg', '.mj2', '.amv')
IMAGE_BRANDS = ('heic', 'heix', 'mif1', 'avif')  # of files with the structure of an MP4
# WebM stores alpha as a second image, which only these decoders combine with the first one.
ALPHA_DECODERS = {'vp8': 'libvpx', 'vp9': 'libvpx-vp9'}
MIN_RATE = fractions.Fraction(1, 65535)  # frames per second
# Colour codes of ITU-T H.273, which frames and streams carry.
BT709, UNKNOWN, SMPTE170M, BT2020 = 1, 2, 6, 9
MATRICES = (BT709, 4, 5, SMPTE170M, 7, BT2020)
ACCURATE = (Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
            | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP)


@dataclasses.dataclass
class Seen:
  """What was found in a video while its frames were decoded.

  Attributes:
    damaged: packets that could not be decoded.
    interlaced: frames that were deinterlaced.
    kept_interlaced: interlaced frames that the filter does not support.
    resized: frames of another size than the first.
    transparent: whether a frame had a pixel that is not opaque.
    bits: the largest bit depth of a frame.
    side_data: notes of `clip_frames.SIDE_DATA`.
    end: the time in seconds at which the last packet of any stream ends, by the file's clock.
  """

  damaged: int = 0
  interlaced: int = 0
  kept_interlaced: int = 0
  resized: int = 0
  transparent: bool = False
  bits: int = 8
  side_data: set[str] = dataclasses.field(default_factory=set)
  end: fractions.Fraction = fractions.Fraction(0)


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
  alpha_decoder: av.VideoCodecContext | None = None  # used in place of the stream's decoder
  seen: Seen = dataclasses.field(default_factory=Seen)

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
    InputError: the file cannot be read, is not a video, has frames of more than `max_pixels`, or
      fewer than one in 18 hours.
  """
  with open_container(path) as container:
    if (container.format.name.endswith('_pipe') or container.format.name == 'image2'
        or container.metadata.get('major_brand', '') in IMAGE_BRANDS):
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
    if rate < MIN_RATE:
      raise InputError(f'{path}: a frame rate of {float(rate):g} per second, at least {MIN_RATE} '
                       'is supported')
    yield Video(path, container, stream, rate.limit_denominator(MIN_RATE.denominator),
                stream.frames or round(seconds * rate), seconds,
                round(fractions.Fraction(start, av.time_base) / stream.time_base),
                _alpha_decoder(stream))


def hides_alpha(stream: av.VideoStream) -> bool:
  """Returns whether the stream's own decoder drops alpha."""
  tags = {key.lower(): value for key, value in stream.metadata.items()}
  return tags.get('alpha_mode') == '1' and stream.codec_context.name in ALPHA_DECODERS


def _alpha_decoder(stream: av.VideoStream) -> av.VideoCodecContext | None:
  """Returns a decoder of colour and alpha, or None if it is not needed or not installed."""
  name, source = ALPHA_DECODERS.get(stream.codec_context.name), stream.codec_context
  if not hides_alpha(stream) or name not in av.codecs_available:
    return None
  decoder = av.CodecContext.create(name, 'r')
  for tag in ('color_primaries', 'color_trc', 'colorspace', 'color_range'):
    setattr(decoder, tag, getattr(source, tag))
  return decoder


def _check_frame_size(path: os.PathLike | str, frame: av.VideoStream | av.VideoFrame,
                      max_pixels: int | None) -> None:
  """Raises an InputError if a frame has more than `max_pixels`."""
  if max_pixels and frame.width * frame.height > max_pixels:
    raise InputError(f'{path}: frames of {frame.width}x{frame.height} have more than '
                     f'{max_pixels} pixels')


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


def has_alpha(frame: av.VideoFrame) -> bool:
  """Returns whether the pixel format stores alpha, or a palette that may."""
  return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


def frame_to_rgb(frame: av.VideoFrame, format: FrameFormat) -> np.ndarray:
  """Converts a frame to upright uint8 [h, w, 3], resized to `format` if its size differs.

  Alpha is composited over white.
  """
  if not frame.format.is_rgb:
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith('yuvj')
    frame.colorspace = _colour_matrix(frame)
    frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG
  alpha = has_alpha(frame)
  image = frame.to_ndarray(format='rgba' if alpha else 'rgb24', width=format.width,
                           height=format.height, interpolation=ACCURATE)
  if alpha:
    image = images.over_white(image[..., :3], image[..., 3:])
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

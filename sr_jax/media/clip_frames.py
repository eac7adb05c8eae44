"""Decodes the frames of a video with their timestamps, and records what they lose."""

import fractions
from collections.abc import Iterator

import av
from av.sidedata.sidedata import Type

from sr_jax.errors import InputError
from sr_jax.images import dropped
from sr_jax.media import clips, interlacing
from sr_jax.media.clips import Video
from sr_jax.media.interlacing import TimedFrame

# Side data of frames that an upscaled video does not have, by its name in FFmpeg.
SIDE_DATA = {'A53_CC': dropped.CAPTIONS, 'MASTERING_DISPLAY_METADATA': dropped.HDR_METADATA,
             'CONTENT_LIGHT_LEVEL': dropped.HDR_METADATA,
             'DYNAMIC_HDR_PLUS': dropped.HDR_METADATA, 'DYNAMIC_HDR_VIVID': dropped.HDR_METADATA,
             'DOVI_METADATA': dropped.HDR_METADATA, 'ICC_PROFILE': dropped.ICC,
             'SPHERICAL': dropped.PROJECTION, 'STEREO3D': dropped.PROJECTION}
# Of so many frames one is searched for side data. A frame and its side data refer to each other,
# so that the frame is not freed until the garbage collector runs.
_SIDE_DATA_INTERVAL = 100
_NOTES = {Type[name]: note for name, note in SIDE_DATA.items() if name in Type.__members__}


def timed_frames(video: Video) -> Iterator[TimedFrame]:
  """Yields (time, frame) of every frame that can be decoded, deinterlaced.

  Times are in units of `video.time_base` and strictly increase. The time of a frame without
  timestamp follows from the frame rate. `video.seen` records what was found on the way.

  Raises:
    InputError: the file cannot be read.
  """
  field_order = interlacing.container_field_order(video.stream)
  return interlacing.deinterlaced(_observed(video, field_order), video.path, field_order)


def _observed(video: Video, field_order: str) -> Iterator[TimedFrame]:
  """Yields the frames as they are decoded, after recording their properties."""
  seen, size = video.seen, None
  for number, (time, frame) in enumerate(_decoded(video)):
    size = size or (frame.width, frame.height)
    seen.resized += (frame.width, frame.height) != size
    if frame.interlaced_frame or field_order:
      seen.interlaced += interlacing.can_deinterlace(frame)
      seen.kept_interlaced += not interlacing.can_deinterlace(frame)
    seen.bits = max(seen.bits, max(part.bits for part in frame.format.components))
    if number % _SIDE_DATA_INTERVAL == 0:
      seen.side_data |= {_NOTES[data.type] for data in frame.side_data if data.type in _NOTES}
    if not seen.transparent and clips.has_alpha(frame):
      seen.transparent = bool((frame.to_ndarray(format='rgba')[..., 3] < 255).any())
    yield time, frame


def _decoded(video: Video) -> Iterator[TimedFrame]:
  """Yields (time, frame) of every frame that can be decoded."""
  step = max(1, round(1 / (video.rate * video.time_base)))
  shift, last = -video.offset, None
  try:
    for packet in video.container.demux():
      if packet.pts is not None and packet.time_base:
        end = (packet.pts + (packet.duration or 0)) * packet.time_base
        video.seen.end = max(video.seen.end, end)
      if packet.stream.index != video.stream.index:
        continue
      try:
        decoded = _decode(video, packet)
      except av.error.InvalidDataError:
        video.seen.damaged += 1
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
    video.seen.damaged += 1
  except av.FFmpegError as error:
    raise InputError(f'{video.path}: cannot read ({clips.error_text(error)})') from None


def _decode(video: Video, packet: av.Packet) -> list[av.VideoFrame]:
  """Decodes a packet; an empty one returns the frames that the decoder still has."""
  if video.alpha_decoder:
    return video.alpha_decoder.decode(packet if packet.size else None)
  return packet.decode()


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

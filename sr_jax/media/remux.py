"""Joins the segments of `segments.py` with the timestamps and the sound of the source video."""

import contextlib
import fractions
import heapq
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import av

from sr_jax.errors import InputError
from sr_jax.media import clips, tags
from sr_jax.media.clip_frames import clock_shift
from sr_jax.system import files

CONTAINERS = {'.mp4': 'mp4', '.mkv': 'matroska'}  # FFmpeg's formats by the suffix of the target
# Codecs that players support in MP4. FFmpeg would also write Vorbis and PCM, which few play.
MP4_SOUND = ('aac', 'mp3', 'ac3', 'eac3', 'opus', 'flac', 'alac')
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)


class Segment(NamedTuple):
  """A file by `segments.segment_writer` and the timestamps of its frames."""

  path: pathlib.Path
  times: Sequence[int]  # in units of `Video.time_base`


class AudioTrack(NamedTuple):
  """A sound stream that is copied or encoded."""

  source: av.AudioStream
  output: av.AudioStream
  resampler: av.AudioResampler | None  # None if the packets are copied
  description: str


class DamagedSegmentError(ValueError):
  """A segment does not contain the frames that were written to it; `.path` is its path."""

  def __init__(self, path: pathlib.Path) -> None:
    super().__init__(f'{path}: does not contain the frames that were written to it')
    self.path = path


def join(segments: Sequence[Segment], video: clips.Video, target: pathlib.Path) -> str:
  """Writes the packets of `segments` and the sound of `video` to `target`, atomically.

  Nothing is encoded again, except for sound that the container or its players do not support, which
  becomes AAC. Chapters, the container's metadata and the language and title of streams are kept
  where the container supports them.

  Returns:
    A description of what became of the sound.

  Raises:
    InputError: `target` cannot be written.
    DamagedSegmentError: a segment has another number of frames than times.
  """
  has_sound, error_text = bool(video.container.streams.audio), None
  # Copy the sound; if that fails, encode it; if that fails as well, drop it: damaged sound is no
  # reason to lose the frames.
  for copy in (True, False, None) if has_sound else (None,):
    try:
      description = _join(segments, video, target, copy)
      break
    except (DamagedSegmentError, InputError, OSError):
      raise
    except (av.FFmpegError, ValueError) as error:
      error_text = clips.error_text(error)
      if copy is None:
        raise InputError(f'{target}: cannot write ({error_text})') from None
  if copy is not None:
    return description
  return f'sound dropped, it cannot be read ({error_text})' if has_sound else 'no sound'


def _join(segments: Sequence[Segment], video: clips.Video, target: pathlib.Path,
          copy: bool | None) -> str:
  """Does what `join` does; the sound is copied if possible, always encoded, or (None) dropped."""
  container = CONTAINERS[target.suffix.lower()]
  # MP4 stores the time of the first frame in a time base of its own, milliseconds by default.
  timescale = video.time_base.denominator * -(-1000 // video.time_base.denominator)
  options = ({'movflags': '+faststart', 'movie_timescale': str(timescale)} if container == 'mp4'
             else {})
  with (clips.open_container(video.path) as source, files.atomic_write(target) as temporary,
        _open_segment(segments[0].path) as first,
        av.open(clips.local_path(temporary), 'w', format=container, options=options) as output):
    output.metadata.update(tags.container_tags(source))
    output.set_chapters(tags.chapters(source, video.offset * video.time_base))
    if not first.streams.video:
      raise DamagedSegmentError(segments[0].path)
    stream = output.add_stream_from_template(first.streams.video[0], opaque=True)
    stream.time_base, stream.codec_context.framerate = video.time_base, video.rate
    tags.copy_stream_tags(source.streams[video.stream.index], stream)
    tracks = [_add_track(output, audio, copy) for audio in source.streams.audio
              if copy is not None and audio.codec_context is not None]
    packets = [_video_packets(segments, video, stream)]
    if tracks:
      packets.append(_sound(source, tracks, video.offset * video.time_base))
    for packet in heapq.merge(*packets, key=lambda packet: packet.dts * packet.time_base):
      output.mux(packet)
  dropped = len(video.container.streams.audio) - len(tracks)
  return 'sound ' + ', '.join([track.description for track in tracks]
                              + ['a stream without a decoder dropped'] * bool(dropped))


def _open_segment(path: os.PathLike | str) -> av.container.InputContainer:
  try:
    return av.open(clips.local_path(path))
  except av.FFmpegError:
    raise DamagedSegmentError(path) from None


def _video_packets(segments: Sequence[Segment], video: clips.Video, stream: av.VideoStream
                   ) -> Iterator[av.Packet]:
  """Yields the packets of all segments with the timestamps of the source."""
  next_times = [time for segment in segments for time in segment.times][1:]
  next_times.append(next_times[-1] if next_times else 0)
  default_duration, count = max(1, round(1 / (video.rate * video.time_base))), 0
  for segment in segments:
    with (_open_segment(segment.path) as container,
          contextlib.suppress(av.error.InvalidDataError, IndexError)):
      packets = []
      # Unlike a comprehension, += keeps the packets before an error.
      packets += (packet for packet in container.demux(video=0) if packet.size)
    if len(packets) != len(segment.times):
      raise DamagedSegmentError(segment.path)
    for packet, time in zip(packets, segment.times, strict=True):
      packet.stream, packet.time_base = stream, video.time_base
      packet.pts = packet.dts = time
      packet.duration = next_times[count] - time if next_times[count] > time else default_duration
      count += 1
      yield packet


def _add_track(output: av.container.OutputContainer, source: av.AudioStream, copy: bool
               ) -> AudioTrack:
  """Adds a sound stream to `output`: a copy if wanted and supported, otherwise AAC."""
  name, track, resampler = source.codec_context.codec.canonical_name, None, None
  if copy and (output.format.name != 'mp4' or name in MP4_SOUND):
    with contextlib.suppress(ValueError):  # the container does not support the codec
      track = output.add_stream_from_template(source, opaque=True)
  description = f'copied ({name})'
  if track is None:
    rate = source.rate if source.rate in AAC_RATES else 48000
    layout = {1: 'mono', 2: 'stereo'}.get(source.channels,
                                          '5.1' if source.channels > 5 else 'stereo')
    track = output.add_stream('aac', rate=rate, layout=layout)
    track.bit_rate = 96000 * track.channels
    resampler = av.AudioResampler('fltp', layout, rate, options={'async': '1'})  # fills gaps
    description = f'encoded to AAC (was {name})'
  tags.copy_stream_tags(source, track)
  return AudioTrack(source, track, resampler, description)


def _sound(source: av.container.InputContainer, tracks: Sequence[AudioTrack],
           start: fractions.Fraction) -> Iterator[av.Packet]:
  """Yields the packets of all tracks in the order of the file, `start` seconds earlier."""
  by_index = {track.source.index: track for track in tracks}
  shifts, last = {}, {}
  for packet in _demux(source, [track.source for track in tracks]):
    index, track = packet.stream.index, by_index[packet.stream.index]
    if packet.size and packet.dts is not None:
      shift = shifts.get(index, -round(start / packet.time_base))
      shift = shifts[index] = clock_shift(packet.dts, shift, last.get(index),
                                          packet.duration or 1, packet.time_base)
      delay = 0 if packet.pts is None else packet.pts - packet.dts
      # Muxers refuse two packets with the same time, so the second one gets the next time.
      packet.dts = max(packet.dts + shift, last.get(index, packet.dts + shift - 1) + 1)
      packet.pts, last[index] = packet.dts + max(0, delay), packet.dts
    if track.resampler:
      yield from _encode(packet, track)
    elif packet.size and packet.dts is not None:
      packet.stream = track.output
      yield packet


def _demux(source: av.container.InputContainer, streams: Sequence[av.AudioStream]
           ) -> Iterator[av.Packet]:
  """Yields packets; those of a truncated file are followed by an empty packet per stream."""
  try:
    yield from source.demux(streams)
  except av.error.InvalidDataError:
    for stream in streams:
      end = av.Packet()
      end.stream, end.time_base = stream, stream.time_base
      yield end


def _encode(packet: av.Packet, track: AudioTrack) -> Iterator[av.Packet]:
  """Yields a packet's sound as AAC; an empty packet flushes the resampler and the encoder."""
  try:
    frames = packet.decode()
  except av.error.InvalidDataError:
    return  # the resampler fills the gap
  for frame in frames:
    for part in track.resampler.resample(frame):
      yield from track.output.encode(part)
  if not packet.size:
    for part in track.resampler.resample(None):
      yield from track.output.encode(part)
    yield from track.output.encode(None)

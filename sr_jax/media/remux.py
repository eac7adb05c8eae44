"""Joins the segments of `clips.py`, with the times and the sound of the clip they are of."""

import contextlib
import fractions
import heapq
from collections.abc import Iterator, Sequence

import av

from sr_jax.errors import InputError
from sr_jax.media import clips
from sr_jax.system import files

CONTAINERS = {'.mp4': 'mp4', '.mkv': 'matroska'}  # by the suffix of what is written
# Sound that players expect in an mp4. FFmpeg writes more there, Vorbis and PCM, which few play.
MP4_SOUND = ('aac', 'mp3', 'ac3', 'eac3', 'opus', 'flac', 'alac')
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
KEPT = ('title', 'artist', 'album', 'comment', 'date', 'creation_time', 'description')


class DamagedError(ValueError):
  """A segment does not hold its frames; `.part` is its path."""

  def __init__(self, part):
    super().__init__(f'{part}: not the frames that were written')
    self.part = part


def join(parts: Sequence, times: Sequence[Sequence[int]], clip: clips.Clip, target) -> str:
  """Writes the packets of `parts` and the sound of `clip` to `target`, whole or not at all.

  Nothing is encoded a second time, but for sound that the container or its players do not
  take, which becomes AAC.

  Args:
    parts: files by `clips.segment`.
    times: of the frames of each, in units of `clip.time_base`.

  Returns:
    What became of the sound, in words.

  Raises:
    InputError: `target` can't be written.
    DamagedError: a part has not as many frames as times.
  """
  has_sound, lost = bool(clip.container.streams.audio), None
  for copy in (True, False, None) if has_sound else (None,):
    try:
      words = _join(parts, times, clip, target, copy)
      break
    except (DamagedError, InputError, OSError):
      raise
    except (av.FFmpegError, ValueError) as error:
      lost = clips.reason(error)
      if copy is None:
        raise InputError(f'{target}: can not be written ({lost})') from None
  # Damaged sound is no reason to lose the pictures.
  return (words if copy is not None else
          f'sound lost, which can not be read ({lost})' if has_sound else 'no sound')


def _join(parts, times, clip, target, copy: bool | None) -> str:
  """As `join`, with the sound copied where that can be, all encoded, or (None) left out."""
  container = CONTAINERS[target.suffix.lower()]
  # An mp4 tells when the first frame is shown in a time base of its own, else milliseconds.
  fine = clip.time_base.denominator * -(-1000 // clip.time_base.denominator)
  options = ({'movflags': '+faststart', 'movie_timescale': str(fine)} if container == 'mp4'
             else {})
  with (clips.read(clip.path) as source, files.atomic_write(target) as temporary,
        _part(parts[0]) as first,
        av.open(clips.address(temporary), 'w', format=container, options=options) as output):
    output.metadata.update({key: source.metadata[key] for key in KEPT if key in source.metadata})
    if not first.streams.video:
      raise DamagedError(parts[0])
    video = output.add_stream_from_template(first.streams.video[0], opaque=True)
    video.time_base, video.codec_context.framerate = clip.time_base, clip.rate
    tracks = [_track(output, stream, copy) for stream in source.streams.audio
              if copy is not None and stream.codec_context is not None]
    packets = [_pictures(parts, times, clip, video)]
    if tracks:
      packets.append(_sound(source, tracks, clip.offset * clip.time_base))
    for packet in heapq.merge(*packets, key=lambda packet: packet.dts * packet.time_base):
      output.mux(packet)
  dropped = len(clip.container.streams.audio) - len(tracks)
  return 'sound ' + ', '.join([words for *_, words in tracks]
                              + ['without a decoder left out'] * bool(dropped))


def _part(path) -> av.container.InputContainer:
  try:
    return av.open(clips.address(path))
  except av.FFmpegError:
    raise DamagedError(path) from None


def _pictures(parts, times, clip, stream) -> Iterator[av.Packet]:
  following = [time for part in times for time in part][1:]
  following.append(following[-1] if following else 0)
  usual, count = max(1, round(1 / (clip.rate * clip.time_base))), 0
  for part, part_times in zip(parts, times, strict=True):
    with _part(part) as container, contextlib.suppress(av.error.InvalidDataError, IndexError):
      packets = []
      packets += (packet for packet in container.demux(video=0) if packet.size)
    if len(packets) != len(part_times):
      raise DamagedError(part)
    for packet, time in zip(packets, part_times, strict=True):
      packet.stream, packet.time_base = stream, clip.time_base
      packet.pts = packet.dts = time
      packet.duration = following[count] - time if following[count] > time else usual
      count += 1
      yield packet


def _track(output, stream, copy: bool):
  """(a stream of sound, its stream in `output`, a resampler unless it is copied, words)."""
  name, kept, resampler = stream.codec_context.codec.canonical_name, None, None
  if copy and (output.format.name != 'mp4' or name in MP4_SOUND):
    with contextlib.suppress(ValueError):  # a codec that the container has no room for
      kept = output.add_stream_from_template(stream, opaque=True)
  words = f'copied ({name})'
  if kept is None:
    rate = stream.rate if stream.rate in AAC_RATES else 48000
    layout = {1: 'mono', 2: 'stereo'}.get(stream.channels,
                                          '5.1' if stream.channels > 5 else 'stereo')
    kept = output.add_stream('aac', rate=rate, layout=layout)
    kept.bit_rate = 96000 * kept.channels
    resampler = av.AudioResampler('fltp', layout, rate, options={'async': '1'})  # fills gaps
    words = f'encoded to AAC (was {name})'
  kept.metadata.update({key: stream.metadata[key] for key in ('language', 'title')
                        if key in stream.metadata})
  return stream, kept, resampler, words


def _sound(source, tracks, start: fractions.Fraction) -> Iterator[av.Packet]:
  """The packets of all tracks, `start` seconds earlier, as they lie in the source."""
  by_index = {stream.index: (kept, resampler) for stream, kept, resampler, _ in tracks}
  shifts, last = {}, {}
  for packet in _demuxed(source, [stream for stream, *_ in tracks]):
    index, (kept, resampler) = packet.stream.index, by_index[packet.stream.index]
    if packet.size and packet.dts is not None:
      shift = shifts.get(index, -round(start / packet.time_base))
      shift = shifts[index] = clips.set_back(packet.dts, shift, last.get(index),
                                             packet.duration or 1, packet.time_base)
      behind = 0 if packet.pts is None else packet.pts - packet.dts
      # Two packets at one time, which muxers refuse, are heard one after the other.
      packet.dts = max(packet.dts + shift, last.get(index, packet.dts + shift - 1) + 1)
      packet.pts, last[index] = packet.dts + max(0, behind), packet.dts
    if resampler:
      yield from _encoded(packet, kept, resampler)
    elif packet.size and packet.dts is not None:
      packet.stream = kept
      yield packet


def _demuxed(source, streams) -> Iterator[av.Packet]:
  try:
    yield from source.demux(streams)
  except av.error.InvalidDataError:  # broken off
    for stream in streams:
      ending = av.Packet()
      ending.stream, ending.time_base = stream, stream.time_base
      yield ending


def _encoded(packet, kept, resampler) -> Iterator[av.Packet]:
  try:
    frames = packet.decode()
  except av.error.InvalidDataError:
    return  # the resampler fills the gap
  for frame in frames:
    for part in resampler.resample(frame):
      yield from kept.encode(part)
  if not packet.size:  # the last
    for part in resampler.resample(None):
      yield from kept.encode(part)
    yield from kept.encode(None)

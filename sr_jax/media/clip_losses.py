"""Says what an upscaled video lacks of its source, in the words of `images.dropped`."""

import av
from av.stream import Discard

from sr_jax.images import dropped
from sr_jax.media import clips

_ATTACHED_PICTURE = av.stream.Disposition.attached_pic


def of_frames(video: clips.Video) -> list[str]:
  """Returns what the frames lost that were decoded so far."""
  seen = video.seen
  hidden_alpha = clips.hides_alpha(video.stream) and not video.alpha_decoder
  notes = [dropped.ALPHA] * seen.transparent + [dropped.UNDECODED_ALPHA] * hidden_alpha
  if seen.bits > 8:
    notes.append(dropped.bits(seen.bits, 8))
  notes += [f'{note} ({count:,})' for note, count in (
      (dropped.INTERLACED, seen.interlaced),
      (dropped.KEPT_INTERLACED, seen.kept_interlaced)) if count]
  if seen.resized:
    notes.append(dropped.resized(seen.resized))
  return notes + sorted(seen.side_data)


def of_streams(video: clips.Video) -> list[str]:
  """Returns notes of the streams other than the upscaled one and sound."""
  # MP4 stores the titles of chapters as a data stream, which FFmpeg marks to be skipped.
  others = [stream for stream in video.container.streams
            if stream.type != 'audio' and stream.index != video.stream.index
            and not (stream.type == 'data' and stream.discard == Discard.all)]
  covers = [stream for stream in others
            if stream.type == 'video' and stream.disposition & _ATTACHED_PICTURE]
  found = {stream.type for stream in others if stream not in covers}
  words = {'video': dropped.FURTHER_VIDEOS, 'subtitle': dropped.SUBTITLES,
           'attachment': dropped.ATTACHMENTS, 'data': dropped.DATA_STREAMS}
  return ([note for kind, note in words.items() if kind in found]
          + [f'{kind} streams dropped' for kind in sorted(found - set(words))]
          + [dropped.COVER] * bool(covers))

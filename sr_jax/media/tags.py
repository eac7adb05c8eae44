"""Metadata and chapters that an upscaled video keeps, and the names of those that it loses."""

import fractions
import os
from typing import Any

import av

from sr_jax.images import dropped
from sr_jax.media import clips

# Keys that describe the source file and its encoder: they would be wrong in the result.
TECHNICAL = ('major_brand', 'minor_version', 'compatible_brands', 'encoder', 'encoding_tool',
             'duration', 'timecode', 'modification_date', 'company_name', 'application_platform',
             'operational_pattern_ul', 'uid', 'generation_uid', 'isvbr', 'sforiginalfps',
             'deviceconformancetemplate', 'metadatacreator', 'datasize', 'videosize', 'audiosize',
             'lasttimestamp', 'lastkeyframetimestamp', 'lastkeyframelocation', 'canseektoend',
             'software')
TECHNICAL_PREFIXES = ('product_', 'toolkit_version', 'material_package', 'file_package', 'wmfsdk',
                      'hasvideo', 'hasaudio', 'hasmetadata', 'haskeyframes', 'audiocodec',
                      'videocodec', 'audiodatarate', 'videodatarate')
STREAM_KEYS = ('language', 'title')  # of a video or sound stream
_UNDEFINED = ('', 'und')  # values that say nothing


def container_tags(source: av.container.InputContainer) -> dict[str, str]:
  """Returns the metadata of a container that stays true for the result."""
  return {key: value for key, value in source.metadata.items()
          if key.lower() not in TECHNICAL and not key.lower().startswith(TECHNICAL_PREFIXES)}


def copy_stream_tags(source: av.stream.Stream, target: av.stream.Stream) -> None:
  """Copies the language and the title of a stream."""
  target.metadata.update({key: source.metadata[key] for key in STREAM_KEYS
                          if source.metadata.get(key, '') not in _UNDEFINED})


def chapters(source: av.container.InputContainer, offset: fractions.Fraction
             ) -> list[dict[str, Any]]:
  """Returns the chapters, `offset` seconds earlier, without those of a damaged header."""
  kept = []
  for number, chapter in enumerate(source.chapters()):
    base = chapter['time_base']
    if not base:
      continue
    start, end = (chapter[key] - round(offset / base) for key in ('start', 'end'))
    if 0 <= start < end and end * base < 10**6:
      kept.append({**chapter, 'id': number + 1, 'start': start, 'end': end})
  return kept


def lost(video: clips.Video, target: os.PathLike | str) -> list[str]:
  """Compares the tags and chapters of `video` with those that the file `target` has.

  A container has a limited set of keys and drops others without an error.

  Returns:
    Notes in the words of `images.dropped`.
  """
  source = video.container
  with clips.open_container(target) as result:
    written = {key.lower() for key in result.metadata}
    keys = [key for key in container_tags(source) if key.lower() not in written]
    sound = [stream for stream in source.streams.audio if stream.codec_context is not None]
    for old, new in zip([video.stream, *sound], [*result.streams.video, *result.streams.audio],
                        strict=False):
      language = old.metadata.get('language', '')
      if language not in (*_UNDEFINED, new.metadata.get('language')):
        keys.append(f'language {language}')
    chapters_lost = len(result.chapters()) < len(source.chapters())
  return [dropped.metadata(keys)] * bool(keys) + [dropped.CHAPTERS] * chapters_lost

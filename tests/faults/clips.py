"""Hostile videos and packed data sets."""

import fractions
import functools
import io

import numpy as np

from tests.faults.mutation import as_json, changed, mutated, pick

# By suffix: FFmpeg's format, the codec, the pixel format and the codec's options.
CONTAINERS = {
    'mp4': ('mp4', 'libx264', 'yuv420p', {}), 'avi': ('avi', 'mpeg4', 'yuv420p', {}),
    'mkv': ('matroska', 'libx264', 'yuv420p10le', {}),
    'ts': ('mpegts', 'libx264', 'yuv420p', {'flags': '+ilme+ildct', 'x264-params': 'tff=1'}),
    'mxf': ('mxf', 'mpeg2video', 'yuv420p', {'flags': '+ilme+ildct'}),
    'vob': ('vob', 'mpeg2video', 'yuv420p', {}), 'mpg': ('mpeg', 'mpeg1video', 'yuv420p', {}),
    'webm': ('webm', 'libvpx-vp9', 'yuva420p', {}), 'mov': ('mov', 'qtrle', 'argb', {}),
    'flv': ('flv', 'flv', 'yuv420p', {}), 'asf': ('asf', 'wmv2', 'yuv420p', {}),
    'ogv': ('ogg', 'libvpx', 'yuv420p', {}), '3gp': ('3gp', 'libx264', 'yuv420p', {}),
    'nut': ('nut', 'ffv1', 'yuv422p', {}), 'wtv': ('wtv', 'mpeg2video', 'yuv420p', {})}
WITH_CHAPTERS = ('mp4', 'mkv', 'mov', 'nut')


@functools.cache
def good(suffix: str) -> bytes:
  """Returns a valid video of four frames with tags and, where possible, chapters."""
  import av
  format, codec, pixels, options = CONTAINERS[suffix]
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format=format) as output:
    output.metadata.update(title='a title', creation_time='2020-01-02T03:04:05Z')
    if suffix in WITH_CHAPTERS:
      output.set_chapters([
          {'id': number + 1, 'start': 80 * number, 'end': 80 * number + 80,
           'time_base': fractions.Fraction(1, 1000), 'metadata': {'title': 'a chapter'}}
          for number in range(2)])
    stream = output.add_stream(codec, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt = 32, 24, pixels
    stream.metadata['language'] = 'deu'
    for index in range(4):
      image = np.full((24, 32, 4), 40 * index, np.uint8)
      output.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgba')))
    output.mux(stream.encode(None))
  return buffer.getvalue()


def make_video(rng: np.random.Generator, suffix: str = '') -> bytes:
  """Returns a mutated video, or a playlist that refers to other files.

  Args:
    rng: determines the mutation.
    suffix: a key of CONTAINERS; '' for any of them.
  """
  data = good(suffix or pick(rng, list(CONTAINERS)))
  playlist = b'#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXTINF:1,\nfile:///etc/passwd\n'
  if not suffix and rng.random() < 0.05:
    return pick(rng, (playlist, b'ffconcat version 1.0\nfile /etc/passwd\n'))
  return mutated(rng, data, front=pick(rng, (1, 3)))


def make_packed(rng: np.random.Generator) -> dict[str, bytes]:
  """Returns the files of a packed set by name, some of them mutated."""
  table = np.zeros((2, 5), np.int32)
  table[:, 1:] = (0, 192, 4, 4), (300, 492, 4, 4)
  buffer = io.BytesIO()
  np.save(buffer, table)
  index = {'shape': [1, 600], 'images': [0, 1], 'skipped': [[2, '\0HR\0: damaged']]}
  index = changed(rng, index) if rng.random() < 0.6 else index
  data = buffer.getvalue()
  return {'index.json': as_json(rng, index),
          'table.npy': mutated(rng, data, front=2) if rng.random() < 0.6 else data,
          'pixels': bytes(pick(rng, (600, 600, 600, 0, 1, 599))),
          'files.json': as_json(rng, changed(rng, {'/a/b.png': [1, 2, 3, 'hash']}))}

"""Hostile videos and packed data sets."""

import functools
import io

import numpy as np

from tests.faults.mutation import as_json, changed, mutated, pick


@functools.cache
def good() -> dict[str, bytes]:
  """Returns a valid video of four frames for each container."""
  import av
  videos = {}
  for format, codec in (('mp4', 'libx264'), ('avi', 'mpeg4'), ('matroska', 'libx264')):
    buffer = io.BytesIO()
    with av.open(buffer, 'w', format=format) as output:
      stream = output.add_stream(codec, rate=25)
      stream.width, stream.height, stream.pix_fmt = 32, 24, 'yuv420p'
      for index in range(4):
        image = np.full((24, 32, 3), 40 * index, np.uint8)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
      output.mux(stream.encode(None))
    videos[format] = buffer.getvalue()
  return videos


def make_video(rng: np.random.Generator) -> bytes:
  """Returns a mutated video, or a playlist that refers to other files."""
  data = pick(rng, list(good().values()))
  playlist = b'#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXTINF:1,\nfile:///etc/passwd\n'
  if rng.random() < 0.05:
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

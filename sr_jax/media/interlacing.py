"""Deinterlaces videos by FFmpeg's bwdif.

An interlaced frame holds two fields, its even and its odd rows, that were recorded at different
times. A network would take the comb between them for detail. bwdif keeps the rows of the first
field and interpolates the others from both fields and from the neighbouring frames. Every frame
gives one frame, so that timestamps and sound stay as they are; frames that are not interlaced are
unchanged.
"""

import collections
import os
from collections.abc import Iterator

import av

from sr_jax.errors import InputError

TimedFrame = tuple[int, av.VideoFrame]
# Decoders of these codecs mark interlaced frames. For others only the container may say so.
MARKING_CODECS = ('h264', 'hevc', 'mpeg1video', 'mpeg2video', 'mpeg4', 'vc1', 'wmv3', 'prores',
                  'cavs')
# FFmpeg's codes of the field order in a container, and whether the upper field is shown first.
FIELD_ORDERS = {2: 'tff', 3: 'bff', 4: 'bff', 5: 'tff'}
MIN_WIDTH, MIN_HEIGHT = 3, 4  # smaller frames are not supported by bwdif


def container_field_order(stream: av.VideoStream) -> str:
  """Returns 'tff' or 'bff' if only the container says that frames are interlaced, else ''."""
  context = stream.codec_context
  if context.codec.canonical_name in MARKING_CODECS:
    return ''
  return FIELD_ORDERS.get(int(context.field_order), '')


def can_deinterlace(frame: av.VideoFrame) -> bool:
  """Returns whether bwdif supports the frame; RGB would be converted first, which loses colour."""
  return (frame.width >= MIN_WIDTH and frame.height >= MIN_HEIGHT
          and not frame.format.is_rgb and not frame.format.has_palette)


def deinterlaced(frames: Iterator[TimedFrame], path: os.PathLike | str, field_order: str = ''
                 ) -> Iterator[TimedFrame]:
  """Yields as many (time, frame) as there are in `frames`, with interlaced ones deinterlaced.

  Args:
    frames: (time, frame) in the order of display.
    path: the video, for messages.
    field_order: 'tff' or 'bff' if all frames are interlaced although they are not marked so.

  Raises:
    InputError: the filter fails.
  """
  graph, layout, times = None, (), collections.deque()
  try:
    for time, frame in frames:
      new_layout = (frame.width, frame.height, frame.format.name)
      if graph and new_layout != layout:  # the filter needs frames of one kind
        graph.push(None)
        yield from _ready(graph, times)
        graph = None
      if not graph and (frame.interlaced_frame or field_order) and can_deinterlace(frame):
        graph, layout = _filter(frame, field_order), new_layout
      if not graph:
        yield time, frame
        continue
      times.append(time)
      graph.push(frame)
      yield from _ready(graph, times)
    if graph:
      graph.push(None)
      yield from _ready(graph, times)
  except av.FFmpegError as error:
    raise InputError(f'{path}: cannot deinterlace ({error.strerror or error})') from None


def _filter(frame: av.VideoFrame, field_order: str) -> av.filter.Graph:
  """Returns the filter for frames like `frame`."""
  graph = av.filter.Graph()
  chain = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name,
                            time_base=frame.time_base)]
  if field_order:
    chain.append(graph.add('setfield', f'mode={field_order}'))
  chain.append(graph.add('bwdif', 'mode=send_frame:parity=auto:deint=interlaced'))
  graph.link_nodes(*chain, graph.add('buffersink')).configure()
  return graph


def _ready(graph: av.filter.Graph, times: collections.deque[int]) -> Iterator[TimedFrame]:
  """Yields the frames that the filter has finished, with the times of the frames they replace."""
  while True:
    try:
      frame = graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
      return
    yield times.popleft(), frame

"""Boxes of the ISO base media format, which AVIF, HEIF, JPEG 2000 and JPEG XL files consist of."""

from collections.abc import Iterator

# Boxes that contain boxes, and the bytes of their own fields before these.
_CONTAINERS = {b'meta': 4, b'iprp': 0, b'ipco': 0, b'jp2h': 0, b'res ': 0}
_MAX_BOXES = 10_000  # in one file


def walk(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Yields (type, body) of every box of a file in its order, boxes inside others included.

  Ends at the first box that is not intact.
  """
  left = _MAX_BOXES
  ranges = [(0, len(data))]
  while ranges and left:
    start, end = ranges.pop()
    if end - start < 8:
      continue
    left -= 1
    size, kind, header = int.from_bytes(data[start:start + 4], 'big'), data[start + 4:start + 8], 8
    if size == 1:
      size, header = int.from_bytes(data[start + 8:start + 16], 'big'), 16
    size = size or end - start
    if size < header:
      return
    body, stop = start + header, min(start + size, end)
    ranges.append((start + size, end))
    if kind in _CONTAINERS:
      ranges.append((body + _CONTAINERS[kind], stop))
    else:
      yield kind, data[body:stop]


def brands(data: bytes) -> frozenset[bytes]:
  """Returns the brands in the 'ftyp' box at the beginning of a file; none if there is no such box.

  Args:
    data: the beginning of the file.
  """
  if data[4:8] != b'ftyp':
    return frozenset()
  end = min(int.from_bytes(data[:4], 'big'), len(data))
  # The bytes after the first brand are its version.
  return frozenset({data[8:12], *(data[at:at + 4] for at in range(16, end - 3, 4))})

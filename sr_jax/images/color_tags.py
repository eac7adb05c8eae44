"""Colour tags other than ICC profiles, as the chunks of a PNG file (PNG specification, 11.3.2).

The nclx box of AVIF and HEIF and the colour encoding of JPEG XL have the same meaning and become
chunks, so that a PNG can store the tags of every format. Samples without a tag are shown as sRGB.
"""

import struct
from collections.abc import Mapping

from sr_jax.images import dropped

CHUNKS = (b'cICP', b'mDCV', b'cLLI', b'gAMA', b'cHRM', b'sRGB')
Tags = Mapping[bytes, bytes]  # name of a chunk: its body

_SRGB_GAMMA, _GAMMA_TOLERANCE = 45_455, 500  # in 1/100,000
_SRGB_XY = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)  # white, R, G, B
_XY_TOLERANCE = 200
# (primaries, transfer) of ITU-T H.273 that are sRGB, or unspecified.
_SRGB_CODES = ((1, 13), (2, 2), (1, 2), (2, 13))


def cicp(primaries: int, transfer: int) -> dict[bytes, bytes]:
  """Returns the tags of RGB samples with these codes of ITU-T H.273; none if they are sRGB."""
  if (primaries, transfer) in _SRGB_CODES:
    return {}
  return {b'cICP': bytes((primaries & 255, transfer & 255, 0, 1))}


def gamma(exponent: float) -> dict[bytes, bytes]:
  """Returns the tag of samples that are the light to the power of `exponent`, such as 1/2.2."""
  return {b'gAMA': struct.pack('>I', round(exponent * 100_000))}


def chromaticities(values: list[float]) -> dict[bytes, bytes]:
  """Returns the tag of x and y of white, red, green and blue."""
  return {b'cHRM': struct.pack('>8i', *(round(value * 100_000) for value in values))}


def notes(tags: Tags, icc: bytes) -> list[str]:
  """Returns what is lost when samples are written without their tags.

  Nothing is lost by tags that say sRGB, nor by those that a profile or a cICP chunk overrules.

  Args:
    tags: the colour tags.
    icc: the profile of the same file, or b''.
  """
  if body := tags.get(b'cICP'):
    codes = '/'.join(map(str, body[:2]))
    return [] if tuple(body[:2]) in _SRGB_CODES else [dropped.color_tag('cICP/nclx', codes)]
  if icc or b'sRGB' in tags:
    return []
  found = []
  exponent = tags.get(b'gAMA', b'')
  if len(exponent) == 4:
    value = int.from_bytes(exponent, 'big')
    if abs(value - _SRGB_GAMMA) > _GAMMA_TOLERANCE:
      found.append(dropped.color_tag('gAMA', f'{value / 100_000:g}'))
  primaries = tags.get(b'cHRM', b'')
  if len(primaries) == 32 and any(
      abs(value - expected) > _XY_TOLERANCE
      for value, expected in zip(struct.unpack('>8i', primaries), _SRGB_XY, strict=True)):
    found.append(dropped.color_tag('cHRM'))
  return found
